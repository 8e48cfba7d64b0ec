import type { WasmMemory } from '../base/index.js';
import type { RemoteDescriptor } from '../mm/index.js';
import type { InterpreterModule } from '../riscv/index.js';
import type { FrameTagsDescriptor } from './framecheck.js';
import type { VmTablesDescriptor } from './vmtables.js';

/**
 * What a VM needs of the place it runs in: a clock and timers. Injected, since the core layers know neither Node nor
 * the DOM; `unpin/node` has one for Node, and tests have their own.
 */
export interface Environment {
  /** Milliseconds from any fixed point, the same in all threads; monotonic, with fractions. */
  nowMs(): number;
  /** Calls `fn` once other work (I/O, other guests) has had its turn. */
  defer(fn: () => void): void;
  /** Calls `fn` after `ms` milliseconds, or sooner where no timer is that long; the result cancels it. */
  setTimer(fn: () => void, ms: number): () => void;
  /** See EngineOptions. */
  readonly hostIsTso?: boolean;
  /**
   * Starts a thread that calls `runVcpuThread(init, ...)`. `onPost`: it has posted; `onExit`: it has ended, by itself or because it was terminated,
   * and runs not one instruction more. Absent where there are no threads.
   */
  startVcpuThread?(init: VcpuThreadInit, onPost: () => void, onExit: (reason: string) => void): VcpuThreadHandle;
}

export interface VcpuThreadHandle {
  /** Kills the thread at whatever instant; resolves when it runs no more. */
  terminate(): Promise<unknown>;
}

/** What a vCPU's thread begins with: structured-cloneable. */
export interface VcpuThreadInit {
  readonly memory: WasmMemory;
  readonly interpreter: InterpreterModule;
  readonly id: number;
  readonly tables: VmTablesDescriptor;
  readonly remote: RemoteDescriptor;
  /** Room for decoded code. */
  readonly recordsAddr: number;
  readonly nrDecodedPages: number;
  /** When the guest's clock began. */
  readonly startMs: number;
  /** Its words (clock.ts). */
  readonly clockAddr: number;
  /** In test builds (framecheck.ts). */
  readonly frameTags?: FrameTagsDescriptor;
}
