import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { createMemory } from '../../src/base/index.js';
import { Words } from '../../src/mm/index.js';
import { bundleWorker } from '../worker.js';

it('a worker of a test runs the sources on the memory that it is given', async () => {
  const memory = createMemory(65536);
  const url = bundleWorker(new URL('./echoworker.ts', import.meta.url));
  expect(bundleWorker(new URL('./echoworker.ts', import.meta.url))).toBe(url);
  const worker = new Worker(url, { workerData: memory });
  expect(await once(worker, 'message')).toEqual(['done']);
  expect(new Words(memory, 0, 1).load(0)).toBe(4096);
  await worker.terminate();
});
