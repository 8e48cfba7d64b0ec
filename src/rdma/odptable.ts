import {
  type Mm,
  type MmuNotifierRange,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  PAGE_SIZE,
} from '../mm/index.js';
import type { NicState } from './nic/nicstate.js';
import { REGION_DEAD, type Region } from './nic/region.js';
import { rdmaNotifierOps } from './notify.js';

/**
 * A demand paged table and the subscription that empties it: of an explicit region, or of a child of an implicit one.
 *
 * Use: `new OdpTable` when the region's words are filled in, which subscribes; `unplug` takes its key and entries away, and when it returns no copy uses them;
 * `unsubscribe` then, which may have to wait for a bracket; the memory is the owner's to free after that.
 */

/** What a table needs of its device. */
export interface OdpDevice {
  readonly state: NicState;
  countInvalidations(nr: number): void;
}

export class OdpTable {
  readonly region: Region;
  readonly device: OdpDevice;
  readonly mm: Mm;
  nrInvalidations = 0;
  readonly sub: MmuSubscription;
  private readonly onUnmapped: (() => void) | undefined;
  private readonly firstVpn: number;
  private readonly endVpn: number;

  /** Throws as `mmuNotifierRegister`. `onUnmapped`: a bracket has unmapped all of it; called from inside of it. */
  constructor(device: OdpDevice, mm: Mm, region: Region, onUnmapped?: () => void) {
    this.device = device;
    this.mm = mm;
    this.region = region;
    this.onUnmapped = onUnmapped;
    this.firstVpn = region.vpn();
    this.endVpn = this.firstVpn + region.nrPages();
    this.sub = mmuNotifierRegister(mm, this.firstVpn * PAGE_SIZE, this.endVpn * PAGE_SIZE, rdmaNotifierOps(this), {
      onPoisoned: () => region.addFlags(REGION_DEAD),
    });
  }

  private page(vpn: number): number {
    return Math.min(Math.max(vpn, this.firstVpn), this.endVpn) - this.firstVpn;
  }

  zapVpnsLocked(startVpn: number, endVpn: number): number {
    return this.region.zapLocked(this.page(startVpn), this.page(endVpn));
  }

  zapAllLocked(): number {
    return this.region.zapLocked(0, this.endVpn - this.firstVpn);
  }

  clearYoungVpnsLocked(startVpn: number, endVpn: number): boolean {
    return this.region.clearYoungLocked(this.page(startVpn), this.page(endVpn));
  }

  testYoung(startVpn: number, endVpn: number): boolean {
    return this.region.testYoung(this.page(startVpn), this.page(endVpn));
  }

  countEntries(startVpn: number, endVpn: number, writable = false): number {
    return this.region.countEntries(this.page(startVpn), this.page(endVpn), writable);
  }

  countInvalidations(nr: number): void {
    this.nrInvalidations += nr;
    this.device.countInvalidations(nr);
  }

  unmapped(range: MmuNotifierRange): void {
    if (this.onUnmapped === undefined) return;
    if (range.ranges[0]! <= this.firstVpn && range.ranges[1]! >= this.endVpn) this.onUnmapped();
  }

  /** Nothing names it any more, and nothing is installed. When it returns no copy is under way that has found it. */
  unplug(): void {
    const { region } = this;
    region.lock();
    region.setKey(0);
    region.addFlags(REGION_DEAD);
    this.zapAllLocked();
    region.unlock();
    this.device.state.awaitCopy();
  }

  /** After `unplug`. False while a bracket is open, or from a callback: again later (M39). */
  tryUnsubscribe(): boolean {
    const { sub } = this;
    if (!sub.registered) return true;
    try {
      mmuNotifierUnregister(sub);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === 'EBUSY' || code === 'EDEADLK') return false;
      throw error;
    }
    // No copy can use what a poisoned table may have mapped: `unplug` has waited.
    mmuNotifierUnpin(sub);
    return true;
  }
}
