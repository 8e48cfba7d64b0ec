import { ERRNO, type ErrnoName, KernelError } from '../../base/index.js';
import { Deferred } from '../deferred.js';
import type { Host } from '../host.js';
import { PAGE_SIZE, pfnToPa } from '../layout.js';
import type { BackingStore } from './backingstore.js';

/**
 * Transfers of a backing store, with what a bad one may do to us contained: it may throw, reject, answer with nonsense, or never. Whoever
 * waits for a transfer waits for `settled`: until it has ended, or is overdue. An overdue transfer still owns its frames.
 */

export interface IoLimits {
  /** Runs `fn` after `ms` milliseconds, unless the function that it returns is called before. Without it nothing is ever overdue. */
  readonly setTimer: ((fn: () => void, ms: number) => () => void) | undefined;
  readonly timeoutMs: number;
}

export class Transfer {
  private readonly deferred = new Deferred();
  private cancel: (() => void) | undefined;
  /** It has ended, well or not. */
  ended = false;
  /** Why it failed, as far as it did. */
  error: KernelError | undefined;

  constructor(limits: IoLimits | undefined) {
    this.cancel = limits?.setTimer?.(() => this.settle(), limits.timeoutMs);
  }

  /** Resolves when it has ended or is overdue. */
  get settled(): Promise<void> {
    return this.deferred.promise;
  }

  end(error: KernelError | undefined): void {
    this.ended = true;
    this.error = error;
    this.settle();
  }

  private settle(): void {
    this.cancel?.();
    this.cancel = undefined;
    this.deferred.resolve();
  }
}

/** What a store's transfer came to: the bytes that it moved, and why not all of them. */
export interface Moved {
  readonly lenBytes: number;
  readonly error: KernelError | undefined;
}

export type StoreOp = 'read' | 'write';

export async function transfer(store: BackingStore, op: StoreOp, offset: number, frames: Uint8Array[]): Promise<Moved> {
  try {
    return checkMoved(store, op, offset, frames, await store[op](offset, frames));
  } catch (error) {
    return { lenBytes: 0, error: storeError(store, op, error) };
  }
}

export function transferSync(store: BackingStore, op: StoreOp, offset: number, frames: Uint8Array[]): Moved {
  const call = op === 'read' ? 'readSync' : 'writeSync';
  try {
    return checkMoved(store, op, offset, frames, store[call]!(offset, frames));
  } catch (error) {
    return { lenBytes: 0, error: storeError(store, op, error) };
  }
}

function checkMoved(store: BackingStore, op: StoreOp, offset: number, frames: Uint8Array[], moved: unknown): Moved {
  let wanted = 0;
  for (const frame of frames) wanted += frame.length;
  if (moved === wanted) return { lenBytes: wanted, error: undefined };
  const lenBytes = typeof moved === 'number' && moved > 0 && moved < wanted ? moved : 0;
  const message = `${store.name}: ${String(moved)} bytes moved at ${offset}, where there are ${wanted}`;
  return { lenBytes, error: new KernelError('EIO', op, message) };
}

/** Any other call of the store. Rejects with KernelError. */
export async function callStore(store: BackingStore, syscall: string, call: () => Promise<void>): Promise<void> {
  try {
    await call();
  } catch (error) {
    throw storeError(store, syscall, error);
  }
}

function storeError(store: BackingStore, syscall: string, error: unknown): KernelError {
  if (error instanceof KernelError) return error;
  return new KernelError('EIO', syscall, `${store.name}: ${String(error)}`, { cause: error });
}

/** The name of an errno number. */
export function errnoName(errno: number): ErrnoName {
  for (const [name, value] of Object.entries(ERRNO)) if (value === errno) return name as ErrnoName;
  return 'EIO';
}

export function overdue(syscall: string, name: string): KernelError {
  return new KernelError('EIO', syscall, `${name} has not answered for longer than HostOptions.ioTimeoutMs`);
}

/** The first `lenBytes` bytes of the frames, a view for each that has any of them. */
export function viewsOf(host: Host, pfns: readonly number[], lenBytes: number): Uint8Array[] {
  const views: Uint8Array[] = [];
  for (let k = 0; k * PAGE_SIZE < lenBytes; k++) {
    const pa = pfnToPa(pfns[k]!);
    views.push(host.u8.subarray(pa, pa + Math.min(PAGE_SIZE, lenBytes - k * PAGE_SIZE)));
  }
  return views;
}
