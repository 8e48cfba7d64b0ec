import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KernelError } from '../base/index.js';
import { Host, type OomReport } from '../mm/index.js';
import { type FileSwap, openFileSwap } from '../node/index.js';
import { formatSize } from './args.js';

/**
 * One host and its swap file, from opening to closing, for a run of the command. The swap file goes however the run ends. The
 * default one has no name from the start; one that the user named stays visible while it is in use.
 */
export interface HostRunOptions {
  /** Host memory, bytes. */
  readonly frames: number;
  readonly arenaBytes: number;
  /** Path of the swap file; default: a temporary file without a name. */
  readonly swap?: string;
  readonly swapSize: number;
  /** Told of the first read and of the first write that the swap device failed to do: one line. */
  readonly onSwapError: (message: string) => void;
  readonly onOom?: (report: OomReport) => void;
}

export class HostRun {
  readonly host: Host;
  private readonly swap: FileSwap;
  private readonly removeSwap: () => void;

  private constructor(host: Host, swap: FileSwap) {
    this.host = host;
    this.swap = swap;
    this.removeSwap = () => swap.unlinkSync();
    process.once('exit', this.removeSwap);
  }

  /** Throws KernelError: see openFileSwap and Host; ENOMEM where the process can have no such memory. */
  static async open(options: HostRunOptions): Promise<HostRun> {
    const path = options.swap ?? join(tmpdir(), `unpin-${process.pid}-${randomBytes(4).toString('hex')}.swap`);
    const swap = await openFileSwap(path, { sizeBytes: options.swapSize, unlinked: options.swap === undefined });
    try {
      return new HostRun(createHost(options, swap), swap);
    } catch (error) {
      await swap.close();
      throw error;
    }
  }

  /** Ends what still runs in the host, and removes the swap file. */
  async close(): Promise<void> {
    try {
      await this.host.stop();
    } finally {
      this.swap.unlinkSync();
      process.off('exit', this.removeSwap);
    }
  }
}

function createHost(options: HostRunOptions, swap: FileSwap): Host {
  const told = new Set<string>();
  const onSwapError = (operation: string, error: unknown) => {
    if (told.has(operation)) return;
    told.add(operation);
    options.onSwapError(error instanceof Error ? error.message : String(error));
  };
  try {
    return new Host({
      frames: options.frames / 4096,
      arenaBytes: options.arenaBytes,
      swap,
      now: () => performance.now(),
      defer: (fn) => setImmediate(fn),
      onSwapError,
      ...(options.onOom && { onOom: options.onOom }),
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const what = `${formatSize(options.frames)} of frames and ${formatSize(options.arenaBytes)} for the guests' tables`;
    throw new KernelError('ENOMEM', 'Host', `${what} must fit in what the process may have: ${error.message}`);
  }
}
