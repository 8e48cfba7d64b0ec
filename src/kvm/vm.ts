import { bug, CONFIG_LOCKDEP, KernelError, lockdepSetClass, Words } from '../base/index.js';
import type { MmioBus } from '../machine/index.js';
import {
  type Host,
  InvalidateSeq,
  type Mm,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  PAGE_SIZE,
  VA_SIZE,
} from '../mm/index.js';
import type { RiscvEngine } from '../riscv/index.js';
import { checkManualDirtyLog, clearDirtyLog, getDirtyLog, markDirtyAt } from './dirtylog.js';
import type { Environment } from './environment.js';
import type { UserMemoryRegion } from './memregion.js';
import { DIRECT_A, DIRECT_T, DIRECT_V, DIRECT_W, type Memslot } from './memslot.js';
import { setUserMemoryRegion } from './memslotchange.js';
import { Memslots } from './memslots.js';
import { kvmNotifierOps } from './notify.js';
import type { PfnCache } from './pfncache.js';
import { VmSbi } from './sbi.js';
import { ShadowPages } from './shadow.js';
import { Vcpu } from './vcpu.js';

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
}

/** What the VMs of one `Kvm` share. */
export interface KvmState {
  /** vCPUs inside `run`. */
  nrRunning: number;
  /** Of these, those that wait for a page: the others give way to them more often. */
  nrWaiting: number;
  /** The only one of them may block while it waits for a page. */
  readonly blockWhenAlone: boolean;
}

const DEFAULT_SHADOW_PAGES = 512;
/** The VM's shared words: mmuLock, then the InvalidateSeq. */
const MMU_LOCK = 0;
const INVALIDATE_SEQ = 1;
const NR_WORDS = 16;

export class Vm {
  readonly mm: Mm;
  readonly host: Host;
  readonly engine: RiscvEngine;
  readonly env: Environment;
  readonly state: KvmState;
  readonly bus: MmioBus | undefined;
  readonly slots: Memslots;
  readonly vcpus: Vcpu[] = [];
  readonly shadow: ShadowPages;
  readonly invalidate: InvalidateSeq;
  readonly sbi: VmSbi;
  /** vCPUs that this VM may have; hart ids are 0 to nrVcpus - 1. */
  readonly nrVcpus = 1;
  /** Of the mm thread, as devices are. */
  readonly pfnCaches = new Set<PfnCache>();
  readonly faults = { minor: 0, major: 0, retries: 0 };
  /** KVM_DIRTY_LOG_... of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2. */
  manualDirtyLog = 0;
  private readonly wordsAddr: number;
  private readonly words: Words;
  private readonly subscription: MmuSubscription;
  private destroyed = false;

  constructor(mm: Mm, engine: RiscvEngine, env: Environment, state: KvmState, options: VmOptions) {
    this.mm = mm;
    this.host = mm.host;
    this.engine = engine;
    this.env = env;
    this.state = state;
    this.bus = options.bus;
    this.sbi = new VmSbi(this, options.console);
    this.wordsAddr = this.host.arenaAlloc(NR_WORDS * 4, 64);
    this.words = new Words(this.host.memory, this.wordsAddr, NR_WORDS);
    for (let i = 0; i < NR_WORDS; i++) this.words.writeOnce(i, 0);
    if (CONFIG_LOCKDEP) lockdepSetClass(this.host.memory.buffer, this.wordsAddr + 4 * MMU_LOCK, 'kvmMmuLock');
    this.invalidate = new InvalidateSeq(this.words, INVALIDATE_SEQ);
    this.slots = new Memslots(this.host);
    const nrPages = options.nrShadowPages ?? DEFAULT_SHADOW_PAGES;
    this.shadow = ShadowPages.create(this.host, this.slots, nrPages, (vpn) => this.flushTlbs(vpn));
    this.subscription = mmuNotifierRegister(mm, 0, VA_SIZE, kvmNotifierOps(this), { onPoisoned: () => this.stop() });
  }

  /** Why the VM may map nothing any more, and its vCPUs do not run: a callback broke its contract (N19). Its memory comes back with `destroy`. */
  get poisoned(): string | undefined {
    return this.subscription.poisoned;
  }

  /** Why its vCPUs do not run any more. */
  get ended(): string | undefined {
    if (this.destroyed) return 'the VM was destroyed';
    return this.poisoned === undefined ? undefined : `the VM may map nothing any more: ${this.poisoned}`;
  }

  private stop(): void {
    if (this.destroyed) return;
    this.lockMmu();
    this.zapAll();
    this.unlockMmu();
    for (const vcpu of this.vcpus) vcpu.kick();
  }

  lockMmu(): void {
    this.words.lock(MMU_LOCK);
  }

  unlockMmu(): void {
    this.words.unlock(MMU_LOCK);
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

  createVcpu(id: number): Vcpu {
    if (this.vcpus.some((v) => v.id === id)) throw new KernelError('EEXIST', 'createVcpu', `vCPU ${id} exists already`);
    const vcpu = new Vcpu(this, id);
    this.vcpus.push(vcpu);
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

  /** Puts a direct entry in place, or adds the right to write. A change of frame comes by way of the notifier alone. */
  installDirect(slot: Memslot, i: number, entry: number): void {
    const old = slot.direct.readOnce(i);
    if (old !== 0 && old >>> 12 !== entry >>> 12)
      bug('N3', `gfn ${slot.baseGfn + i} shows frame ${old >>> 12}, which the host replaced by ${entry >>> 12}`);
    slot.direct.writeOnce(i, entry | (old & DIRECT_T));
  }

  zapAll(): void {
    for (const cache of this.pfnCaches) cache.drop();
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

  /** Drops pages [first, end) of the slot; how many there were. */
  zapSlot(slot: Memslot, first: number, end: number): number {
    let nrZapped = 0;
    for (let i = first; i < end; i++) {
      const direct = slot.direct.readOnce(i);
      if (direct === 0) continue;
      this.zapDirect(slot, i, direct);
      nrZapped++;
    }
    return nrZapped;
  }

  private zapDirect(slot: Memslot, i: number, direct: number): void {
    this.shadow.zapGfn(slot, i);
    slot.direct.writeOnce(i, 0);
    for (const vcpu of this.vcpus) vcpu.dropFrame(slot.baseGfn + i, direct >>> 12);
  }

  /** Whether the guest used the host virtual pages [start, end) (bytes) since the last call (N14). */
  clearYoungVpns(start: number, end: number): boolean {
    let young = false;
    for (const slot of this.slots.all()) {
      const first = Math.max(start / PAGE_SIZE - slot.baseVpn, 0);
      const last = Math.min(end / PAGE_SIZE - slot.baseVpn, slot.nrPages);
      for (let i = first; i < last; i++) young = this.clearYoung(slot, i) || young;
    }
    return young;
  }

  private clearYoung(slot: Memslot, i: number): boolean {
    const direct = slot.direct.readOnce(i);
    if ((direct & DIRECT_V) === 0) return false;
    slot.direct.fetchAnd(i, ~DIRECT_A);
    const young = this.shadow.clearYoung(slot, i);
    if ((direct & DIRECT_A) === 0) return young;
    for (const vcpu of this.vcpus) vcpu.flushBarePage(slot.baseGfn + i);
    return true;
  }

  /** Host code has written guest memory at `hva`: the page is dirty, and what was decoded from it is stale. */
  dropCodeAt(hva: number): void {
    markDirtyAt(this, hva);
    const vpn = Math.floor(hva / PAGE_SIZE);
    for (const slot of this.slots.all()) {
      const i = vpn - slot.baseVpn;
      const direct = i >= 0 && i < slot.nrPages ? slot.direct.readOnce(i) : 0;
      if (direct !== 0) for (const { hart } of this.vcpus) hart.dropCode(direct >>> 12);
    }
  }

  /** Returns when every vCPU has flushed its TLB, or is outside and will before it enters. */
  flushAllTlbs(): void {
    for (const { hart } of this.vcpus) hart.tlbFlushAll();
  }

  private flushTlbs(vpn: number): void {
    for (const vcpu of this.vcpus) vcpu.flushPage(vpn);
  }

  /**
   * Ends the VM: no callback runs any more when it returns, a vCPU that waits in `run` comes back with KVM_EXIT_SHUTDOWN, and what a broken contract had pinned is won back. The mm, with the guest's memory, stays its owner's. Throws KernelError
   * EDEADLK in a callback of the mm, EBUSY inside a bracket; the VM lives on then.
   */
  destroy(): void {
    if (this.destroyed) return;
    // First of all: where it is refused, nothing has been taken from under the callbacks.
    mmuNotifierUnregister(this.subscription);
    this.destroyed = true;
    for (const cache of this.pfnCaches) cache.deactivate();
    for (const vcpu of this.vcpus) vcpu.destroy();
    this.shadow.free(this.host);
    this.slots.destroy();
    this.host.arenaFree(this.wordsAddr, NR_WORDS * 4);
    mmuNotifierUnpin(this.subscription);
  }
}
