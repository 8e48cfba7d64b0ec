import { Worker } from 'node:worker_threads';
import type { Environment, VcpuThreadHandle, VcpuThreadInit } from '../kvm/index.js';

/** What a VM needs of Node: see kvm's Environment. */

/** The longest that Node takes for a timer; more than that is 1 ms to it. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface NodeEnvironmentOptions {
  /** The script that vCPUs' threads run; default: this package's own. */
  readonly vcpuWorker?: URL;
}

export function nodeEnvironment(options: NodeEnvironmentOptions = {}): Environment {
  const script = options.vcpuWorker ?? new URL('./vcpuworker.js', import.meta.url);
  return {
    hostIsTso: process.arch === 'x64' || process.arch === 'ia32',
    nowMs: threadClock(),
    defer: (fn: () => void) => {
      setImmediate(fn);
    },
    setTimer: (fn: () => void, ms: number) => {
      const timer = setTimeout(fn, Math.min(ms, LONGEST_TIMER_MS));
      return () => clearTimeout(timer);
    },
    startVcpuThread: (init, onPost, onExit) => startVcpuThread(script, init, onPost, onExit),
  };
}

/** `performance.now()` begins in each thread when the thread does; this clock is the same in all threads of the process. */
export function threadClock(): () => number {
  let offsetMs = Number.POSITIVE_INFINITY;
  // The nearest of some looks at two clocks: it was not interrupted in between.
  for (let look = 0; look < 8; look++) {
    const before = performance.now();
    offsetMs = Math.min(offsetMs, Number(process.hrtime.bigint()) / 1e6 - before);
  }
  return () => performance.now() + offsetMs;
}

function startVcpuThread(
  script: URL,
  init: VcpuThreadInit,
  onPost: () => void,
  onExit: (reason: string) => void,
): VcpuThreadHandle {
  const worker = new Worker(script, { workerData: init });
  let reason = 'it was terminated';
  worker.on('message', onPost);
  worker.on('error', (error) => {
    reason = error instanceof Error ? error.message : String(error);
  });
  worker.on('exit', () => onExit(reason));
  return { terminate: () => worker.terminate() };
}
