import { parentPort, workerData } from 'node:worker_threads';
import { PAGE_SIZE, Words } from '../../src/mm/index.js';

/** Stores the page size in word 0 of the memory that it is given. */
new Words(workerData, 0, 1).store(0, PAGE_SIZE);
parentPort!.postMessage('done');
