import { parentPort, workerData } from 'node:worker_threads';
import { runNicThread } from '../rdma/index.js';
import { nodeStreamNet } from './rdmanet.js';

/** The script of a NIC's thread in Node: its sockets are its own. */
const handle = runNicThread(workerData, {
  post: (message) => parentPort!.postMessage(message),
  setTimer: (fn, ms) => {
    const timer = setTimeout(fn, ms);
    return () => clearTimeout(timer);
  },
  defer: (fn) => void setImmediate(fn),
  net: nodeStreamNet(),
});
parentPort!.on('message', handle);
