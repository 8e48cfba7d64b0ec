import { KernelError } from '../base/index.js';
import { FAULT_FLAG_WRITE, type MmuNotifierRange, PAGE_SIZE, pfnToPa } from '../mm/index.js';
import { KVM_MEM_READONLY } from './memregion.js';
import type { Vm } from './vm.js';

/**
 * A guest page whose host frame is remembered, for a device that comes back to it again and again (Linux: struct gfn_to_pfn_cache).
 * It keeps no reference: the notifier takes the frame away, as it does from a TLB, and the next use looks it up anew.
 *
 * Belongs to the mm thread, where devices run. It is used between two waits: `check()` (or `await refresh()`), then the bytes at
 * `pa`, and after the next `await` `check()` again.
 *
 *   one user                                 another                          mm
 *   refresh: waits for the page              refresh: waits as well           bracket: takes the frame away
 *   looks the page up; valid                 finds it valid: done             start: invalid
 *                                                                             end
 *                                            (had it waited for another page than this one has now: looks again)
 *
 * Required outcome: what two refresh at once is the frame that the host maps now, never the one that either saw before (M30).
 *
 * Use: `new PfnCache(vm)`, `await activate(gpa, lenBytes)`; `if (!cache.check()) await cache.refresh()`, `cache.pa`, after a
 * write `cache.markDirty()`; `deactivate()`.
 */
export class PfnCache {
  /** Host physical address of `gpa`, while `check()` says so. */
  pa = 0;
  private readonly vm: Vm;
  private readonly writable: boolean;
  private gpa = 0;
  private hva = 0;
  private valid = false;
  private active = false;
  /** The table of memslots that `hva` is from. */
  private generation = 0;

  /** `writable`: the page is had for writing, and dirty; else for reading alone. */
  constructor(vm: Vm, writable = true) {
    this.vm = vm;
    this.writable = writable;
  }

  /**
   * From now on it is [gpa, gpa + lenBytes) that is cached, which lies in one page. May wait for it. Rejects with KernelError EINVAL; EFAULT outside RAM or, for
   * writing, in a read-only slot; ENODEV where the VM has ended; or why the page cannot be had. It is active all the same, and may be refreshed later.
   */
  async activate(gpa: number, lenBytes: number): Promise<void> {
    if (!Number.isInteger(gpa) || gpa < 0 || !(lenBytes > 0) || (gpa % PAGE_SIZE) + lenBytes > PAGE_SIZE)
      throw new KernelError('EINVAL', 'pfnCache', `${lenBytes} bytes at gpa ${gpa} must lie in one page`);
    this.valid = false;
    this.gpa = gpa;
    this.active = true;
    this.vm.pfnCaches.add(this);
    await this.refresh();
  }

  /** Nothing is cached any more; a `refresh` under way ends with EINVAL. */
  deactivate(): void {
    this.active = false;
    this.valid = false;
    this.vm.pfnCaches.delete(this);
  }

  /** Whether `pa` is where the guest's bytes are. */
  check(): boolean {
    return this.valid && this.generation === this.vm.slots.currentGeneration;
  }

  /** Finds the page again. Resolves with `check()` true, which it is until something is waited for. Rejects as `activate`. */
  async refresh(): Promise<void> {
    for (let n = 0; !this.tryRefresh(); n++) {
      const { hva, writable, vm } = this;
      // A bracket is under way, or something took the page at once: theirs is the next turn.
      if (n > 0) await new Promise<void>((resolve) => vm.env.defer(resolve));
      try {
        await vm.mm.faultIn(hva, writable ? FAULT_FLAG_WRITE : 0);
      } catch (error) {
        // Not the page's error any more, where another is wanted now, or the slot shows another.
        if (this.active && this.locate() === hva) throw error;
      }
    }
  }

  /** As `refresh`, without waiting; false where it would have to. Throws as `activate`. */
  tryRefresh(): boolean {
    if (this.active && this.check()) return true;
    const { vm } = this;
    this.hva = this.locate();
    this.generation = vm.slots.currentGeneration;
    const seq = vm.invalidate.readBegin();
    const pfn = vm.mm.tryGetPage(this.hva, this.writable ? FAULT_FLAG_WRITE : 0);
    if (pfn <= 0) return false;
    vm.mm.putPage(pfn);
    this.pa = pfnToPa(pfn) + (this.gpa % PAGE_SIZE);
    // A look-up may reclaim, and copy: what it found is kept only if no bracket has covered it since.
    this.valid = !vm.invalidate.readRetry(seq, this.hva);
    return this.valid;
  }

  private locate(): number {
    const { vm, gpa } = this;
    if (vm.ended !== undefined) throw new KernelError('ENODEV', 'pfnCache', vm.ended);
    if (!this.active) throw new KernelError('EINVAL', 'pfnCache', 'the cache was deactivated');
    const gfn = Math.floor(gpa / PAGE_SIZE);
    const slot = vm.slots.find(gfn);
    if (slot !== undefined && !(this.writable && (slot.flags & KVM_MEM_READONLY) !== 0)) return slot.hva(gfn);
    const wanted = this.writable ? 'RAM that can be written' : 'RAM';
    throw new KernelError('EFAULT', 'pfnCache', `gpa 0x${gpa.toString(16)} must be in ${wanted}`);
  }

  /** Bytes have been written at `pa`: the page is in the dirty log, and code that was decoded from it is dropped. */
  markDirty(): void {
    this.vm.dropCodeAt(this.hva);
  }

  /** Called by the notifier, in `start`. */
  invalidate(range: MmuNotifierRange): void {
    if (this.valid && this.overlaps(range)) this.valid = false;
  }

  private overlaps({ ranges, nrRanges }: MmuNotifierRange): boolean {
    const vpn = this.hva / PAGE_SIZE;
    for (let i = 0; i < nrRanges; i++) if (vpn >= ranges[2 * i]! && vpn < ranges[2 * i + 1]!) return true;
    return false;
  }

  /** Called where all that maps guest memory goes. */
  drop(): void {
    this.valid = false;
  }

  /** For the checker, while `check()` says so. */
  get mapping(): { vpn: number; pfn: number; writable: boolean } {
    return { vpn: this.hva / PAGE_SIZE, pfn: Math.floor(this.pa / PAGE_SIZE), writable: this.writable };
  }

  /** For the checkers: 1 where it maps one of the host virtual pages [startVpn, endVpn), and may write if `writable`. */
  countMappings(startVpn: number, endVpn: number, writable: boolean): number {
    const vpn = this.hva / PAGE_SIZE;
    return this.valid && vpn >= startVpn && vpn < endVpn && (this.writable || !writable) ? 1 : 0;
  }
}
