import { getRandomValues } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import type { NicThreadHandle, NicThreadInit, RdmaEnvironment } from '../rdma/index.js';
import { nodeStreamNet } from './rdmanet.js';

/** What a NIC needs of Node: see rdma's RdmaEnvironment. */

export interface NodeRdmaOptions {
  /** The script that a NIC's thread runs; default: this package's own. */
  readonly nicWorker?: URL;
}

export function nodeRdmaEnvironment(options: NodeRdmaOptions = {}): RdmaEnvironment {
  const script = options.nicWorker ?? new URL('./nicworker.js', import.meta.url);
  return {
    nowMs: () => performance.now(),
    defer: (fn) => {
      setImmediate(fn);
    },
    setTimer: (fn, ms) => {
      const timer = setTimeout(fn, ms);
      return () => clearTimeout(timer);
    },
    randomFill: (bytes) => void getRandomValues(bytes),
    net: nodeStreamNet(),
    startNicThread: (init, onMessage, onExit) => startNicThread(script, init, onMessage, onExit),
  };
}

function startNicThread(
  script: URL,
  init: NicThreadInit,
  onMessage: (message: unknown) => void,
  onExit: (reason: string) => void,
): NicThreadHandle {
  const worker = new Worker(script, { workerData: init });
  let reason = 'it was terminated';
  worker.on('message', onMessage);
  worker.on('error', (error) => {
    reason = error instanceof Error ? error.message : String(error);
  });
  worker.on('exit', () => onExit(reason));
  return { postMessage: (message) => worker.postMessage(message), terminate: () => worker.terminate() };
}
