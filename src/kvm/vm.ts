import { KernelError } from '../base/index.js';
import type { MmioBus } from '../machine/index.js';
import {
  type Host,
  type InvalidateSeq,
  type Mm,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  PAGE_SIZE,
  VA_SIZE,
} from '../mm/index.js';
import type { RiscvEngine } from '../riscv/index.js';
import { VmClock } from './clock.js';
import { checkManualDirtyLog, clearDirtyLog, getDirtyLog, markDirtyAt } from './dirtylog.js';
import type { Environment } from './environment.js';
import { FrameCheck, frameTagsOf } from './framecheck.js';
import type { UserMemoryRegion } from './memregion.js';
import { DIRECT_V, DIRECT_W, type Memslot } from './memslot.js';
import { setUserMemoryRegion } from './memslotchange.js';
import type { Memslots } from './memslots.js';
import { kvmNotifierOps } from './notify.js';
import type { PfnCache } from './pfncache.js';
import { VmSbi } from './sbi.js';
import { ANY_VPN, type ShadowPages } from './shadow.js';
import { Vcpu } from './vcpu.js';
import { VmTables } from './vmtables.js';

/**
 * A virtual machine: memslots, vCPUs and the shadow page tables they share (Linux: struct kvm).
 *
 * Locks: `mmuLock` guards the direct and shadow entries, the reverse map and the bracket's state; it is never held
 * across a wait. Guest memory is entered into these tables by mmu.ts and taken out of them by notify.ts, nowhere else.
 *
 * Use: `kvm.createVm(mm)`, `setUserMemoryRegion`, `createVcpu`, each `vcpu.run()` until it says that the guest is done,
 * `destroy`.
 */

export interface VmOptions {
  /** Devices answered without an exit (KVM's in-kernel bus). */
  readonly bus?: MmioBus;
  /** The console of SBI (DBCN, and the legacy calls). */
  readonly console?: { write(bytes: Uint8Array): void; read(): number };
  /** Shadow pages of 512 entries (8 KiB each with the reverse map); default 512. */
  readonly nrShadowPages?: number;
  /** vCPUs that there may be, 1 to 64; default 1. */
  readonly nrVcpus?: number;
  /** Each vCPU runs in a thread of its own, where the environment has threads; default: all on the mm thread. */
  readonly threads?: boolean;
}

/** As many as a call of the SBI names in one mask. */
export const KVM_MAX_VCPUS = 64;

/** What the VMs of one `Kvm` share. */
export interface KvmState {
  /** vCPUs inside `run`. */
  nrRunning: number;
  /** Of these, those that wait for a page: the others give way to them more often. */
  nrWaiting: number;
  /** The only one of them may block while it waits for a page. */
  readonly blockWhenAlone: boolean;
  /** Pages of code that the thread of a vCPU keeps decoded. */
  readonly nrThreadDecodedPages: number;
  /** See KvmOptions. */
  readonly checkFrames: boolean;
}

const DEFAULT_SHADOW_PAGES = 512;
/** Pages of one slot that TLBs forget one by one (Linux: tlb_single_page_flush_ceiling): what a page costs, 70 ns, against all to be refilled. */
const FLUSH_CEILING = 64;

export class Vm {
  readonly mm: Mm;
  readonly host: Host;
  readonly engine: RiscvEngine;
  readonly env: Environment;
  readonly state: KvmState;
  readonly bus: MmioBus | undefined;
  readonly tables: VmTables;
  readonly vcpus: Vcpu[] = [];
  readonly sbi: VmSbi;
  /** vCPUs that this VM may have; hart ids are 0 to nrVcpus - 1. */
  readonly nrVcpus: number;
  /** Whether its vCPUs run in threads of their own. */
  readonly threads: boolean;
  /** When the guest's clock began, by the environment's. */
  readonly startMs: number;
  /** Of the mm thread, as devices are. */
  readonly pfnCaches = new Set<PfnCache>();
  nrMajorFaults = 0;
  /** KVM_DIRTY_LOG_... of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2. */
  manualDirtyLog = 0;
  /** In test builds (framecheck.ts). */
  readonly frameCheck: FrameCheck | undefined;
  readonly clock: VmClock;
  private readonly subscription: MmuSubscription;
  private destroyed = false;
  /** More pages go than TLBs are asked to forget each: see `zapSlot`. */
  private flushesHeld = false;
  private died: string | undefined;
  /** Nobody enters the guest any more, and the tables, which may be half done, are freed as they are. */
  private threadsEnded = false;
  /** Resolves when all threads that there are to be are ready. */
  private threadsBegun: Promise<unknown> | undefined;

  constructor(mm: Mm, engine: RiscvEngine, env: Environment, state: KvmState, options: VmOptions) {
    this.mm = mm;
    this.host = mm.host;
    this.engine = engine;
    this.env = env;
    this.state = state;
    this.bus = options.bus;
    this.nrVcpus = checkNrVcpus(options.nrVcpus ?? 1);
    this.threads = checkThreads(options.threads ?? false, env);
    this.startMs = env.nowMs();
    if (state.checkFrames) this.frameCheck = checkFramesOf(mm);
    this.sbi = new VmSbi(this, options.console);
    const nrPages = options.nrShadowPages ?? DEFAULT_SHADOW_PAGES;
    this.tables = VmTables.create(this.host, this.nrVcpus, nrPages, (vpn) => this.flushTlbs(vpn));
    this.clock = VmClock.create(this.host, () => env.nowMs(), this.startMs);
    this.subscription = mmuNotifierRegister(mm, 0, VA_SIZE, kvmNotifierOps(this), { onPoisoned: () => this.stop() });
  }

  get slots(): Memslots {
    return this.tables.slots;
  }

  get shadow(): ShadowPages {
    return this.tables.shadow;
  }

  get invalidate(): InvalidateSeq {
    return this.tables.invalidate;
  }

  /** External faults: served at once, by waiting, and those that had to be tried again. */
  get faults(): { minor: number; major: number; retries: number } {
    let [minor, retries] = [0, 0];
    for (const vcpu of this.vcpus) {
      minor += vcpu.nrMinor;
      retries += vcpu.nrRetries;
    }
    return { minor, major: this.nrMajorFaults, retries };
  }

  /** Why the VM may map nothing any more, and its vCPUs do not run: a callback broke its contract (N19). Its memory comes back with `destroy`. */
  get poisoned(): string | undefined {
    return this.subscription.poisoned;
  }

  /** Why its vCPUs do not run any more. */
  get ended(): string | undefined {
    if (this.destroyed) return 'the VM was destroyed';
    if (this.died !== undefined) return this.died;
    return this.poisoned === undefined ? undefined : `the VM may map nothing any more: ${this.poisoned}`;
  }

  private stop(): void {
    if (this.destroyed) return;
    if (!this.threads) {
      this.lockMmu();
      this.zapAll();
      this.unlockMmu();
    }
    for (const vcpu of this.vcpus) vcpu.immediateExit();
  }

  /** The thread of a vCPU has died: none of the VM's runs any more, and what they shared may be half done (N25). */
  threadDied(reason: string): void {
    this.died ??= reason;
    for (const vcpu of this.vcpus) {
      vcpu.immediateExit();
      vcpu.endLostThread();
    }
  }

  lockMmu(): void {
    this.tables.lockByHost();
  }

  unlockMmu(): void {
    this.tables.unlock();
  }

  /** Makes every vCPU flush its TLB and returns when each has done so, or is outside and does it before it enters the guest. Without mmuLock. */
  flushAllTlbs(): void {
    for (const vcpu of this.vcpus) vcpu.requestFlush();
    this.awaitFlushes();
  }

  /** Returns when no vCPU uses what was zapped. Without mmuLock. Pairs with VcpuCore.enter. */
  awaitFlushes(): void {
    for (const vcpu of this.vcpus) vcpu.awaitFlush();
  }

  /** Makes, moves, changes or, with memorySize 0, deletes a slot (memregion.ts). Throws KernelError EINVAL, EEXIST, EFAULT, ENOMEM. */
  setUserMemoryRegion(region: UserMemoryRegion): void {
    setUserMemoryRegion(this, region);
  }

  /** Which pages of a logged slot were written; without manual protection they are clean from now on (dirtylog.ts). Throws KernelError EINVAL, ENOENT. */
  getDirtyLog(slot: number): Uint8Array {
    return getDirtyLog(this, slot);
  }

  /** Pages [first, first + nrPages) that `bitmap` names are clean from now on. Throws KernelError EINVAL, ENOENT. */
  clearDirtyLog(slot: number, first: number, nrPages: number, bitmap: Uint8Array): void {
    clearDirtyLog(this, slot, first, nrPages, bitmap);
  }

  /** KVM_ENABLE_CAP: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 with KVM_DIRTY_LOG_... flags alone. Throws KernelError EINVAL. */
  enableCap(cap: number, flags: number): void {
    this.manualDirtyLog = checkManualDirtyLog(cap, flags);
  }

  /**
   * One of its vCPUs, outside the guest, waits for memory: the guest's clock stands meanwhile, unless another of its vCPUs can do something with the
   * time, and other guests' vCPUs give way to it more often.
   */
  async waitForMemory(wait: () => Promise<void> | void): Promise<void> {
    this.state.nrWaiting++;
    this.clock.waitBegins();
    try {
      await wait();
    } finally {
      this.clock.waitEnds();
      this.state.nrWaiting--;
    }
  }

  /** Its hart has this id. Throws KernelError EINVAL beyond nrVcpus, EEXIST, ENOMEM. */
  createVcpu(id: number): Vcpu {
    if (!Number.isInteger(id) || id < 0 || id >= this.nrVcpus)
      throw new KernelError('EINVAL', 'createVcpu', `vCPU ${id} must be from 0 to ${this.nrVcpus - 1}`);
    if (this.vcpus.some((v) => v.id === id)) throw new KernelError('EEXIST', 'createVcpu', `vCPU ${id} exists already`);
    const vcpu = new Vcpu(this, id);
    this.vcpus.push(vcpu);
    this.threadsBegun = undefined;
    return vcpu;
  }

  /** Drops what maps the host virtual pages [startVpn, endVpn); how many there were. Called with mmuLock held, as all zaps are. */
  zapVpns(startVpn: number, endVpn: number): number {
    let nrZapped = 0;
    for (const slot of this.slots.all()) {
      const first = Math.max(startVpn - slot.baseVpn, 0);
      const end = Math.min(endVpn - slot.baseVpn, slot.nrPages);
      if (first < end) nrZapped += this.zapSlot(slot, first, end);
    }
    return nrZapped;
  }

  zapAll(): void {
    for (const cache of this.pfnCaches) cache.drop();
    if (this.threadsEnded) return;
    for (const slot of this.slots.all()) this.zapSlot(slot, 0, slot.nrPages);
  }

  /** Direct entries of the host virtual pages [startVpn, endVpn), and what devices remember: all, or those that may write. */
  countDirect(startVpn: number, endVpn: number, writable: boolean): number {
    const wanted = writable ? DIRECT_W : DIRECT_V;
    let nr = 0;
    for (const cache of this.pfnCaches) nr += cache.countMappings(startVpn, endVpn, writable);
    for (const slot of this.slots.all()) {
      const end = Math.min(endVpn - slot.baseVpn, slot.nrPages);
      for (let i = Math.max(startVpn - slot.baseVpn, 0); i < end; i++)
        if ((slot.direct.readOnce(i) & wanted) !== 0) nr++;
    }
    return nr;
  }

  /** Drops pages [first, end) of the slot; how many there were. Of many, TLBs forget the first one by one, and then everything. */
  zapSlot(slot: Memslot, first: number, end: number): number {
    let nrZapped = 0;
    for (let i = first; i < end; i++) {
      const direct = slot.direct.readOnce(i);
      if (direct === 0) continue;
      if (nrZapped === FLUSH_CEILING) this.flushesHeld = true;
      this.zapDirect(slot, i, direct);
      nrZapped++;
    }
    if (this.flushesHeld) this.flushHeld();
    return nrZapped;
  }

  private zapDirect(slot: Memslot, i: number, direct: number): void {
    this.shadow.zapGfn(slot, i);
    slot.direct.writeOnce(i, 0);
    for (const vcpu of this.vcpus) {
      if (!this.flushesHeld) vcpu.flushBarePage(slot.baseGfn + i);
      vcpu.dropCode(direct >>> 12);
    }
  }

  /** Behind the last entry that went: a vCPU's thread may have refilled its TLB from those that were still there. */
  private flushHeld(): void {
    this.flushesHeld = false;
    this.flushTlbs(ANY_VPN);
  }

  /** Host code has written guest memory at `hva`: the page is dirty, and what was decoded from it is stale. */
  dropCodeAt(hva: number): void {
    markDirtyAt(this, hva);
    const vpn = Math.floor(hva / PAGE_SIZE);
    for (const slot of this.slots.all()) {
      const i = vpn - slot.baseVpn;
      const direct = i >= 0 && i < slot.nrPages ? slot.direct.readOnce(i) : 0;
      if (direct !== 0) for (const vcpu of this.vcpus) vcpu.dropCode(direct >>> 12);
    }
  }

  private flushTlbs(vpn: number): void {
    if (this.flushesHeld) return;
    for (const vcpu of this.vcpus) vcpu.flushPage(vpn);
  }

  /**
   * Ends the VM: no callback runs any more when it is done, a vCPU that waits in `run` comes back with KVM_EXIT_SHUTDOWN, and what a broken
   * contract had pinned is won back. The mm, with the guest's memory, stays its owner's. All is done when it returns, but
   * with threads, which end first: then when the promise resolves. Throws KernelError EDEADLK in a callback of the mm, EBUSY inside a
   * bracket; the VM lives on then.
   */
  destroy(): Promise<void> {
    if (this.destroyed) return Promise.resolve();
    if (this.threads) return this.endThreads().then(() => this.free());
    this.free();
    return Promise.resolve();
  }

  /**
   * The threads of all vCPUs, stopped ones too, are there before any of them runs. WHY: on a busy machine a thread took six seconds to start; Linux waits
   * one for a hart that it has started, and runs into trouble with one that comes later.
   */
  beginThreads(): Promise<unknown> {
    if (this.ended !== undefined) return Promise.resolve();
    this.threadsBegun ??= Promise.all(this.vcpus.map((vcpu) => vcpu.beginThread()));
    return this.threadsBegun;
  }

  private async endThreads(): Promise<void> {
    this.died ??= 'the VM was destroyed';
    await Promise.all(this.vcpus.map((vcpu) => vcpu.endThread()));
    this.threadsEnded = true;
    this.tables.breakLock();
  }

  private free(): void {
    if (this.destroyed) return;
    // First of all: where it is refused, nothing has been taken from under the callbacks.
    mmuNotifierUnregister(this.subscription);
    this.destroyed = true;
    for (const cache of this.pfnCaches) cache.deactivate();
    for (const vcpu of this.vcpus) vcpu.destroy();
    this.tables.free(this.host);
    this.clock.free(this.host);
    mmuNotifierUnpin(this.subscription);
  }
}

function checkFramesOf(mm: Mm): FrameCheck {
  const { memory, frames } = mm.host;
  return new FrameCheck(memory, frameTagsOf(frames), (va, write) => {
    let found = 0;
    const vpn = va / PAGE_SIZE;
    mm.forEachPresent(vpn, vpn + 1, (_vpn, pfn, writable) => {
      if (writable || !write) found = pfn;
    });
    return found;
  });
}

function checkNrVcpus(nrVcpus: number): number {
  if (Number.isInteger(nrVcpus) && nrVcpus >= 1 && nrVcpus <= KVM_MAX_VCPUS) return nrVcpus;
  throw new KernelError('EINVAL', 'createVm', `nrVcpus ${nrVcpus} must be from 1 to ${KVM_MAX_VCPUS}`);
}

function checkThreads(threads: boolean, env: Environment): boolean {
  if (!threads || env.startVcpuThread !== undefined) return threads;
  throw new KernelError('EINVAL', 'createVm', 'threads must be false where the environment has none');
}
