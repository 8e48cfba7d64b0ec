import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { SearchOptions } from './search.js';
import type { Task, TaskResult } from './suite.js';
import type { FromWorker, ToWorker } from './worker.js';

/** Explores many tasks side by side, each worker thread one at a time. Only in the built package: a worker is JavaScript. */

export interface TaskRefusal {
  readonly task: Task;
  /** Why it could not be explored at all. */
  readonly refusal: string;
}

export interface PoolOptions {
  /** For each search; no functions. */
  readonly search?: SearchOptions;
  /** Threads; default: one for each processor. */
  readonly nrWorkers?: number;
  readonly onDone?: (done: TaskResult | TaskRefusal) => void;
  /** Schedules so far, over all tasks. */
  readonly onProgress?: (schedules: number) => void;
}

/** Results in the order of the tasks. */
export async function runTasks(
  tasks: readonly Task[],
  options: PoolOptions = {},
): Promise<(TaskResult | TaskRefusal)[]> {
  const results = new Array<TaskResult | TaskRefusal>(tasks.length);
  const running = new Map<number, number>();
  let [next, finished] = [0, 0];
  const tell = () => options.onProgress?.([...running.values()].reduce((a, b) => a + b, finished));

  async function work(): Promise<void> {
    const worker = new Worker(new URL('./worker.js', import.meta.url));
    try {
      for (let at = next++; at < tasks.length; at = next++) {
        const done = await runOn(worker, tasks[at]!, options.search ?? {}, (schedules) => {
          running.set(at, schedules);
          tell();
        });
        running.delete(at);
        finished += 'result' in done ? done.result.schedules : 0;
        results[at] = done;
        options.onDone?.(done);
        tell();
      }
    } finally {
      await worker.terminate();
    }
  }
  const nrWorkers = Math.min(tasks.length, options.nrWorkers ?? availableParallelism());
  await Promise.all(Array.from({ length: nrWorkers }, work));
  return results;
}

/** A task that ends its worker (out of memory) is refused; so are those that it would have got next. */
function runOn(
  worker: Worker,
  task: Task,
  options: SearchOptions,
  onProgress: (schedules: number) => void,
): Promise<TaskResult | TaskRefusal> {
  return new Promise((resolve) => {
    const end = (done: TaskResult | TaskRefusal) => {
      worker.off('message', receive);
      worker.off('error', fail);
      resolve(done);
    };
    const receive = (message: FromWorker) => {
      if ('progress' in message) onProgress(message.progress.schedules);
      else end('result' in message ? message.result : { task, refusal: message.refusal });
    };
    const fail = (error: Error) => end({ task, refusal: error.message });
    worker.on('message', receive);
    worker.on('error', fail);
    const message: ToWorker = { task, options };
    worker.postMessage(message);
  });
}
