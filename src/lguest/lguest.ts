import { KernelError } from '../base/index.js';
import type { GuestMemory } from '../machine/index.js';
import type { Mm } from '../mm/index.js';
import type { LguestDevice } from './device.js';

/**
 * One guest, as its launcher has it: the requests that Linux's lguest takes by `write` to the device are methods, and `read` is `run`.
 *
 *   const lg = device.open(mm);
 *   const base = mm.mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
 *   await mm.write(base + ..., kernel);
 *   await lg.initialize({ base, pfnLimit: bytes / PAGE_SIZE, start });
 *   try { for (;;) serve(await lg.run()); } catch (death) { ... } finally { lg.close(); }
 */

/** LHREQ_INITIALIZE. */
export interface LguestInit {
  /** Host virtual address of the guest's memory, one mapping of the launcher's mm: guest-physical 0. A multiple of 4096. */
  readonly base: number;
  /** Pages of guest memory. */
  readonly pfnLimit: number;
  /** Where it begins, a virtual address. */
  readonly start: number | bigint;
  /** Guest-physical address of the first root table; without it the guest begins with its memory shown one to one. */
  readonly pgdir?: number;
  /**
   * Pages [pfnLimit, deviceLimit) of guest-physical memory are devices: an access through the guest's page tables is a pending trap for the launcher. Default
   * pfnLimit, none. A page table that names anything beyond kills the guest.
   */
  readonly deviceLimit?: number;
  /** Locks the guest's memory, as lguest of 2007 did: refused unless the mm's memlock limit allows it. Default false: nothing is locked. */
  readonly pin?: boolean;
}

/** What the launcher must act on (Linux: struct lguest_pending). */
export interface LguestPending {
  /** LGUEST_TRAP_ENTRY: LHCALL_NOTIFY. Else the code of scause: 5 a load, 7 a store or AMO, of device memory; pc is at the instruction, which has done nothing. */
  readonly trap: number;
  /** What LHCALL_NOTIFY named; or the guest-physical address of the access. */
  readonly addr: bigint;
  /** The instruction's bits, 0 for LHCALL_NOTIFY: for the launcher to do in the guest's place, and to set pc behind. */
  readonly insn: number;
}

/** Counted since `initialize`. */
export interface LguestStats {
  readonly instructions: number;
  readonly hypercalls: number;
  /** Shadow entries made by demand_page without waiting, and pages that were waited for. */
  readonly faults: { readonly minor: number; readonly major: number };
  /** Traps, page faults among them, and interrupts that were handed to the guest. */
  readonly traps: number;
  readonly interrupts: number;
  /** LHCALL_NEW_PGTABLE, and those of them that took a page directory from another root. */
  readonly switches: number;
  readonly victims: number;
  /** Shadow entries that notifiers took away. */
  readonly zapped: number;
}

export class Lguest {
  readonly device: LguestDevice;
  readonly mm: Mm;

  constructor(device: LguestDevice, mm: Mm) {
    this.device = device;
    this.mm = mm;
  }

  /**
   * LHREQ_INITIALIZE: makes the guest. Once. Rejects with KernelError EINVAL (what is not whole pages, no memory), EEXIST (a second time), ENOMEM (no room
   * in the arena), and, with `pin`, EPERM or ENOMEM as mlock.
   */
  initialize(_init: LguestInit): Promise<void> {
    return Promise.reject(notYet('initialize'));
  }

  /** LHREQ_IRQ: interrupt `irq`, 0 to 31, is pending; wakes a guest that halts. Throws KernelError EINVAL. */
  irq(_irq: number): void {
    throw notYet('irq');
  }

  /** LHREQ_GETREG: LGUEST_REG_PC, or x1 to x31. Throws KernelError EINVAL. */
  getreg(_reg: number): bigint {
    throw notYet('getreg');
  }

  /** LHREQ_SETREG. Throws KernelError EINVAL. */
  setreg(_reg: number, _value: bigint): void {
    throw notYet('setreg');
  }

  /** LHREQ_TRAP: the guest takes exception `cause` before it goes on, with `tval`. Throws KernelError EINVAL. */
  trap(_cause: number, _tval?: bigint): void {
    throw notYet('trap');
  }

  /**
   * The device's read: runs the guest until the launcher must act. Rejects with LguestDeath when the guest is dead, with KernelError EINTR after `signal`, EBUSY
   * when it runs already, ENOENT before `initialize`. Waits for pages, timers and interrupts by itself, and gives way to others every 4 ms.
   */
  run(): Promise<LguestPending> {
    return Promise.reject(notYet('run'));
  }

  /** Makes `run` reject with EINTR soon, as a signal does to a read; it may be called again then. */
  signal(): void {}

  /** Ends the guest from outside: `run` rejects with LguestDeath 'killed' and this reason. The first reason stays. */
  kill(_reason: string): void {}

  /** The guest's memory as the launcher's devices reach it. */
  get memory(): GuestMemory {
    throw notYet('memory');
  }

  get stats(): LguestStats {
    throw notYet('stats');
  }

  /** Closes the device: the guest is gone, and everything that the driver had for it. The launcher's memory stays. Twice is no error. */
  close(): void {}
}

function notYet(what: string): KernelError {
  return new KernelError('ENOSYS', what, 'lguest: not yet');
}
