import { parentPort } from 'node:worker_threads';
import type { SearchOptions, SearchProgress } from './search.js';
import { runTask, type Task, type TaskResult } from './suite.js';

/** Explores one task after the other in a thread of its own (pool.ts). */

export interface ToWorker {
  readonly task: Task;
  readonly options: SearchOptions;
}

export type FromWorker =
  | { readonly progress: SearchProgress }
  | { readonly result: TaskResult }
  | { readonly refusal: string };

const port = parentPort!;
const send = (message: FromWorker) => port.postMessage(message);

port.on('message', async ({ task, options }: ToWorker) => {
  try {
    send({ result: await runTask(task, { ...options, onProgress: (progress) => send({ progress }) }) });
  } catch (error) {
    send({ refusal: error instanceof Error ? error.message : String(error) });
  }
});
