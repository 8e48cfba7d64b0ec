import { bug, CONFIG_LOCKDEP, KernelError, lockdepSetClass, Words } from '../base/index.js';
import { type Host, InvalidateSeq } from '../mm/index.js';
import { DIRECT_A, DIRECT_T, DIRECT_W, type Memslot } from './memslot.js';
import { Memslots, type MemslotsDescriptor } from './memslots.js';
import { ShadowPages } from './shadow.js';
import type { ShadowDescriptor } from './shadowpool.js';
import { VCPU_MAIL_BYTES } from './vcpumail.js';
import { VcpuState } from './vcpustate.js';

/**
 * All of a VM that its vCPUs share, in shared memory: memslots with their direct entries, shadow pages, the state of the
 * notifier's brackets, the lock over all these, and each vCPU's own words. The mm thread makes the tables; a vCPU's thread
 * attaches to them by their descriptor. Both then do the same with them.
 *
 * `lock` is held for the change or look-up itself, never across a wait, by whichever thread. A thread may be killed while it
 * holds it; its guest is lost then, and the mm thread, which finds the lock not given back, says so (`lockByHost`, N25).
 */

export interface VmTablesDescriptor {
  readonly wordsAddr: number;
  readonly nrVcpus: number;
  readonly slots: MemslotsDescriptor;
  readonly shadow: ShadowDescriptor;
}

/** The VM's words. */
const MMU_LOCK = 0;
const INVALIDATE_SEQ = 4;
const NR_WORDS = 16;
/** Each vCPU's room: its words, then its mail. */
const VCPU_BYTES = 256;
const VCPU_MAIL = VCPU_BYTES - VCPU_MAIL_BYTES;
/** A lock is held for less than a millisecond, a thread that holds it may be off the processor for tens. */
const LOCK_TIMEOUT_MS = 2000;
/** What a direct entry keeps when another fault of the same page comes second. */
const KEPT = DIRECT_W | DIRECT_A | DIRECT_T;

export class VmTables {
  readonly memory: { buffer: SharedArrayBuffer };
  readonly slots: Memslots;
  readonly shadow: ShadowPages;
  readonly invalidate: InvalidateSeq;
  readonly vcpus: readonly VcpuState[];
  private readonly words: Words;
  private readonly wordsAddr: number;
  private readonly isHopeless = (): boolean => this.vcpus.some((vcpu) => vcpu.killed);

  private constructor(
    memory: { buffer: SharedArrayBuffer },
    wordsAddr: number,
    nrVcpus: number,
    slots: Memslots,
    shadow: ShadowPages,
  ) {
    this.memory = memory;
    this.wordsAddr = wordsAddr;
    this.words = new Words(memory, wordsAddr, NR_WORDS);
    if (CONFIG_LOCKDEP) lockdepSetClass(memory.buffer, wordsAddr + 4 * MMU_LOCK, 'kvmMmuLock');
    this.invalidate = new InvalidateSeq(this.words, INVALIDATE_SEQ);
    this.slots = slots;
    this.shadow = shadow;
    this.vcpus = Array.from({ length: nrVcpus }, (_, id) => new VcpuState(memory, this.vcpuAddr(id)));
  }

  /** Throws KernelError EINVAL, ENOMEM. `onZap`: see ShadowPages. */
  static create(host: Host, nrVcpus: number, nrShadowPages: number, onZap: (vpn: number) => void): VmTables {
    const lenBytes = tablesBytes(nrVcpus);
    const wordsAddr = host.arenaAlloc(lenBytes, 64);
    new Int32Array(host.memory.buffer, wordsAddr, lenBytes / 4).fill(0);
    const slots = new Memslots(host);
    const shadow = ShadowPages.create(host, slots, nrShadowPages, onZap);
    return new VmTables(host.memory, wordsAddr, nrVcpus, slots, shadow);
  }

  /** In another thread. */
  static attach(
    memory: { buffer: SharedArrayBuffer },
    descriptor: VmTablesDescriptor,
    onZap: (vpn: number) => void,
  ): VmTables {
    const slots = Memslots.attach(memory, descriptor.slots);
    const shadow = ShadowPages.attach(memory, descriptor.shadow, slots, onZap);
    return new VmTables(memory, descriptor.wordsAddr, descriptor.nrVcpus, slots, shadow);
  }

  descriptor(): VmTablesDescriptor {
    const { wordsAddr, vcpus, slots, shadow } = this;
    return { wordsAddr, nrVcpus: vcpus.length, slots: slots.descriptor(), shadow: shadow.descriptor };
  }

  private vcpuAddr(id: number): number {
    return this.wordsAddr + NR_WORDS * 4 + id * VCPU_BYTES;
  }

  mailAddr(id: number): number {
    return this.vcpuAddr(id) + VCPU_MAIL;
  }

  lock(): void {
    this.words.lock(MMU_LOCK);
  }

  /** As `lock`, by the mm thread. Throws KernelError ETIMEDOUT where a vCPU's thread died with it. */
  lockByHost(): void {
    if (this.words.lockTimeout(MMU_LOCK, LOCK_TIMEOUT_MS, this.isHopeless)) return;
    throw new KernelError('ETIMEDOUT', 'lockMmu', 'the thread of a vCPU has died with the lock of its VM');
  }

  unlock(): void {
    this.words.unlock(MMU_LOCK);
  }

  /** No thread is left that may hold the lock; what it guards may be half done, and is to be freed as a whole. */
  breakLock(): void {
    this.words.store(MMU_LOCK, 0);
  }

  /**
   * Puts a direct entry in place, or adds the right to write. A change of frame comes by way of the notifier alone, and a right is taken away by nobody here:
   *
   *   a vCPU that reads                  a vCPU that writes
   *   finds the page, for reading
   *                                      finds it for writing; lock; entry with W; shadow entry with W; unlock
   *   lock; entry without W
   *
   * Required outcome: the entry keeps W, as the shadow entry does (N5).
   */
  installDirect(slot: Memslot, i: number, entry: number): void {
    const old = slot.direct.readOnce(i);
    if (old !== 0 && old >>> 12 !== entry >>> 12)
      bug('N3', `gfn ${slot.baseGfn + i} shows frame ${old >>> 12}, which the host replaced by ${entry >>> 12}`);
    slot.direct.writeOnce(i, entry | (old & KEPT));
  }

  /** On the mm thread, when nobody is attached any more. */
  free(host: Host): void {
    this.shadow.free(host);
    this.slots.destroy();
    host.arenaFree(this.wordsAddr, tablesBytes(this.vcpus.length));
  }
}

function tablesBytes(nrVcpus: number): number {
  return NR_WORDS * 4 + nrVcpus * VCPU_BYTES;
}
