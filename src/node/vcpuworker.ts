import { parentPort, workerData } from 'node:worker_threads';
import { runVcpuThread } from '../kvm/index.js';
import { threadClock } from './environment.js';

/** The script of a vCPU's thread in Node. */
runVcpuThread(workerData, threadClock(), () => parentPort!.postMessage(0));
