import { parentPort, workerData } from 'node:worker_threads';
import { Words } from '../../src/base/index.js';
import type { WasmMemory } from '../../src/mm/index.js';
import { RemoteUser, type UserDescriptor } from './remotedriver.js';

/**
 * A thread that writes and reads the pages of its driver for ever, in an order of its own, and asks the mm thread by message for what it cannot have. Word 0
 * of `mailAddr` is the answer, word 1 counts its accesses. Each page holds, in its first word, its number; it may be taken back to zeros.
 */
export interface RemoteWorkerData {
  readonly memory: WasmMemory;
  readonly user: UserDescriptor;
  readonly mailAddr: number;
  readonly seed: number;
}

const { memory, user: descriptor, mailAddr, seed } = workerData as RemoteWorkerData;
const user = new RemoteUser(memory, descriptor);
const mail = new Words(memory, mailAddr, 2);
const port = parentPort!;

function ask(k: number, write: boolean): void {
  mail.store(0, 0);
  port.postMessage({ k, write });
  mail.wait(0, 0);
}

port.postMessage({ ready: true });
for (let x = seed; ; ) {
  x = (Math.imul(x, 1103515245) + 12345) >>> 0;
  const k = (x >>> 8) % descriptor.nrPages;
  if ((x & 0x80) !== 0) while (!user.write(k, k)) ask(k, true);
  else {
    let value = user.read(k);
    for (; value === undefined; value = user.read(k)) ask(k, false);
    if (value !== 0 && value !== k) port.postMessage({ wrong: `page ${k} holds ${value}` });
  }
  mail.fetchAdd(1, 1);
}
