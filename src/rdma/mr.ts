import { KernelError } from '../base/index.js';
import { type Mm, PAGE_SIZE, VA_SIZE } from '../mm/index.js';
import {
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_OPTIONAL_RANGE,
  IBV_ACCESS_REMOTE_ATOMIC,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  IBV_REREG_MR_CHANGE_ACCESS,
  IBV_REREG_MR_CHANGE_PD,
  IBV_REREG_MR_CHANGE_TRANSLATION,
} from './constants.js';
import type { ContextImpl } from './context.js';
import { ImplicitRegion } from './implicit.js';
import { mkEntry, REGION_DEAD, REGION_IMPLICIT, REGION_INVALID, REGION_PINNED, type Region } from './nic/region.js';
import { DIRECTORY_WORDS } from './nic/regiontable.js';
import { OdpTable } from './odptable.js';
import { PinnedPages } from './pinned.js';
import type { MemoryRegion, ProtectionDomain } from './verbs.js';

/**
 * Memory regions: what stands behind a key. An explicit one has a table of its own, an implicit one children that come and go, a pinned one a table that nothing
 * takes entries out of.
 *
 *   deregMr                                    NIC
 *   key 0, entries gone, under the lock        in a copy: ends it; finds no key for the next piece
 *   waits for the copy in flight
 *   the subscription goes, when no bracket
 *     is open; then table and slot are free    a fault under way: answered, finds no key
 */

const ACCESS_ALL =
  IBV_ACCESS_LOCAL_WRITE |
  IBV_ACCESS_REMOTE_WRITE |
  IBV_ACCESS_REMOTE_READ |
  IBV_ACCESS_REMOTE_ATOMIC |
  IBV_ACCESS_ON_DEMAND;

export const MAX_MR_BYTES = 2 ** 38;

export interface MrPlan {
  readonly addr: number;
  readonly length: number;
  readonly iova: number;
  readonly access: number;
}

/** What is wrong with the wish, before anything is done. Throws KernelError EINVAL, EOPNOTSUPP. */
export function checkPlan(plan: MrPlan): void {
  const { addr, length, iova, access } = plan;
  const refuse = (what: string): never => {
    throw new KernelError('EINVAL', 'regMr', what);
  };
  if (!Number.isInteger(access) || (access & ~(ACCESS_ALL | IBV_ACCESS_OPTIONAL_RANGE)) !== 0)
    refuse(`access 0x${access.toString(16)} must be made of IBV_ACCESS_ flags that this device has`);
  const remoteWrites = access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC);
  if (remoteWrites !== 0 && (access & IBV_ACCESS_LOCAL_WRITE) === 0)
    refuse('IBV_ACCESS_REMOTE_WRITE and IBV_ACCESS_REMOTE_ATOMIC need IBV_ACCESS_LOCAL_WRITE');
  if (isImplicitPlan(plan)) {
    if ((access & IBV_ACCESS_ON_DEMAND) === 0)
      throw new KernelError('EOPNOTSUPP', 'regMr', 'an implicit region needs IBV_ACCESS_ON_DEMAND');
    return;
  }
  if (!Number.isInteger(addr) || addr < 0) refuse(`addr ${addr} must be an address`);
  if (!Number.isInteger(length) || length < 1 || length > MAX_MR_BYTES)
    refuse(`length ${length} must be from 1 to ${MAX_MR_BYTES}`);
  if (addr + length > VA_SIZE) refuse(`[0x${addr.toString(16)}, +${length}) must be a part of [0, 2^39)`);
  if (!Number.isSafeInteger(iova) || iova < 0 || !Number.isSafeInteger(iova + length))
    refuse(`iova ${iova} must be an address below 2^53`);
  if (iova % PAGE_SIZE !== addr % PAGE_SIZE)
    refuse(`iova 0x${iova.toString(16)} must lie in its page where addr 0x${addr.toString(16)} does`);
}

export function isImplicitPlan({ addr, length }: MrPlan): boolean {
  return addr === 0 && length === Number.POSITIVE_INFINITY;
}

export class Mr implements MemoryRegion {
  readonly context: ContextImpl;
  pd: ProtectionDomain;
  mm: Mm;
  addr = 0;
  iova = 0;
  length = 0;
  access = 0;
  lkey = 0;
  nrPages = 0;
  /** A key names it, and nobody has begun to end it. */
  isLive = false;
  table: OdpTable | undefined;
  implicit: ImplicitRegion | undefined;
  pinned: PinnedPages | undefined;
  nrFaults = 0;
  nrPrefetches = 0;
  private region: Region | undefined;
  private slot = -1;
  private tableAddr = 0;
  private tableBytes = 0;
  private firstVpn = 0;
  private ended = false;
  /** A registration that is under way. */
  private changing: Promise<void> | undefined;
  private isChanging = false;

  private constructor(context: ContextImpl, pd: ProtectionDomain) {
    this.context = context;
    this.pd = pd;
    this.mm = context.mm;
  }

  /** Rejects as `regMr`. */
  static async register(context: ContextImpl, pd: ProtectionDomain, plan: MrPlan): Promise<Mr> {
    checkPlan(plan);
    const mr = new Mr(context, pd);
    // Before it waits for pages: the context, when it is closed, ends what is on its way too.
    context.addMr(mr);
    await mr
      .change(async () => await mr.plug(plan))
      .catch((error: unknown) => {
        context.removeMr(mr);
        throw error;
      });
    return mr;
  }

  get rkey(): number {
    return this.lkey;
  }

  get isImplicit(): boolean {
    return this.implicit !== undefined;
  }

  get isValid(): boolean {
    return this.isLive && (this.region!.flags() & (REGION_INVALID | REGION_DEAD)) === 0 && !this.mm.exited;
  }

  vaOf(page: number): number {
    return (this.firstVpn + page) * PAGE_SIZE;
  }

  /** Page of the region with the address `to` of its own. */
  pageOf(to: number): number {
    return Math.floor((to - this.iova + (this.addr % PAGE_SIZE)) / PAGE_SIZE);
  }

  private async plug(plan: MrPlan): Promise<void> {
    const { mm } = this;
    if (mm.exited) throw new KernelError('EFAULT', 'regMr', `${mm.name} has exited`);
    const implicit = isImplicitPlan(plan);
    this.addr = plan.addr;
    this.iova = plan.iova;
    this.length = implicit ? VA_SIZE : plan.length;
    this.access = plan.access & ~IBV_ACCESS_OPTIONAL_RANGE;
    this.firstVpn = Math.floor(plan.addr / PAGE_SIZE);
    this.nrPages = Math.ceil((plan.addr + this.length) / PAGE_SIZE) - this.firstVpn;
    const onDemand = (plan.access & IBV_ACCESS_ON_DEMAND) !== 0;
    if (!onDemand) this.pinned = await PinnedPages.pin(mm, this.firstVpn, this.nrPages, this.writes);
    try {
      this.context.refuseClosed('regMr');
      if (this.ended) throw new KernelError('EINVAL', 'regMr', 'the region was deregistered meanwhile');
      this.place(implicit, onDemand);
    } catch (error) {
      this.pinned?.unpin();
      this.pinned = undefined;
      throw error;
    }
  }

  private get writes(): boolean {
    return (this.access & (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) !== 0;
  }

  /** Its slot, its table, its subscription, and then its key. */
  private place(implicit: boolean, onDemand: boolean): void {
    const { device } = this.context;
    const { slot, key } = device.takeSlot(this);
    const region = device.regions.at(slot);
    this.slot = slot;
    this.region = region;
    try {
      this.tableBytes = (implicit ? DIRECTORY_WORDS : this.nrPages) * 4;
      this.tableAddr = device.allocZeroed(this.tableBytes);
      this.initRegion(implicit, onDemand);
      if (implicit) this.implicit = new ImplicitRegion(device, this.mm, region);
      else if (onDemand) this.table = new OdpTable(device, this.mm, region);
      else this.installPinned();
    } catch (error) {
      this.freePlace();
      throw error;
    }
    this.lkey = key;
    this.isLive = true;
    region.setKey(key);
  }

  private initRegion(implicit: boolean, onDemand: boolean): void {
    const kind = (implicit ? REGION_IMPLICIT : 0) | (onDemand ? 0 : REGION_PINNED);
    this.region!.init({
      flags: this.access | kind,
      pd: this.pd.handle,
      context: this.context.id,
      iova: this.iova,
      length: this.length,
      addr: this.addr,
      tableAddr: this.tableAddr,
      nrPages: this.nrPages,
    });
  }

  private installPinned(): void {
    const { words } = this.region!;
    for (const [page, pfn] of this.pinned!.pfns.entries())
      words.writeOnce((this.tableAddr >>> 2) + page, mkEntry(pfn, this.writes));
  }

  private freePlace(): void {
    const { device } = this.context;
    if (this.tableAddr !== 0) device.host.arenaFree(this.tableAddr, this.tableBytes);
    this.tableAddr = 0;
    if (this.slot >= 0) device.giveSlot(this.slot);
    this.slot = -1;
  }

  async deregMr(): Promise<void> {
    if (this.ended) throw new KernelError('EINVAL', 'deregMr', 'the region was deregistered before');
    this.ended = true;
    this.context.removeMr(this);
    if (this.isChanging) await this.changing;
    await this.unplug();
  }

  /** Runs what registers it; `deregMr` waits for that. */
  private async change(work: () => Promise<void>): Promise<void> {
    this.isChanging = true;
    const working = work().finally(() => {
      this.isChanging = false;
    });
    this.changing = working.catch(() => {});
    await working;
  }

  /** No key names it when this has returned its promise, and no copy uses it. */
  private async unplug(): Promise<void> {
    if (!this.isLive) return;
    const { device } = this.context;
    const region = this.region!;
    this.isLive = false;
    if (this.table !== undefined) this.table.unplug();
    else {
      region.lock();
      region.setKey(0);
      region.addFlags(REGION_DEAD);
      region.unlock();
      this.implicit?.destroyAll();
      device.state.awaitCopy();
    }
    this.pinned?.unpin();
    this.pinned = undefined;
    // A bracket that is open has told us its start, and will tell its end (M39).
    while (this.table !== undefined && !this.table.tryUnsubscribe()) await device.turn();
    while (this.implicit?.isDying) await device.turn();
    this.implicit?.freeDirectory();
    this.countPast();
    this.table = undefined;
    this.implicit = undefined;
    this.freePlace();
  }

  /** What its tables counted stays counted. */
  private countPast(): void {
    const { region, context } = this;
    context.device.past.minorFaults += region!.nrFaults() + (this.implicit?.nrFaults ?? 0);
    context.device.past.retries += region!.nrRetries() + (this.implicit?.nrRetries ?? 0);
  }

  async reregMr(
    flags: number,
    change: { pd?: ProtectionDomain; addr?: number; length?: number; access?: number },
  ): Promise<void> {
    const plan = this.changed(flags, change);
    if (this.ended) throw new KernelError('EINVAL', 'reregMr', 'the region was deregistered before');
    if (this.isChanging) throw new KernelError('EBUSY', 'reregMr', 'another change is under way');
    if (!this.isLive) throw new KernelError('EINVAL', 'reregMr', 'the region is gone since a reregMr failed: deregMr');
    checkPlan(plan);
    await this.change(async () => {
      await this.unplug();
      this.pd = (flags & IBV_REREG_MR_CHANGE_PD) !== 0 ? change.pd! : this.pd;
      await this.plug(plan);
    });
  }

  private changed(
    flags: number,
    change: { pd?: ProtectionDomain; addr?: number; length?: number; access?: number },
  ): MrPlan {
    const refuse = (what: string): never => {
      throw new KernelError('EINVAL', 'reregMr', what);
    };
    const all = IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS;
    if (flags === 0 || (flags & ~all) !== 0)
      refuse(`flags 0x${flags.toString(16)} must be made of IBV_REREG_MR_ flags`);
    if ((flags & IBV_REREG_MR_CHANGE_PD) !== 0 && change.pd?.context !== this.context)
      refuse('pd must be a protection domain of the same context');
    const moves = (flags & IBV_REREG_MR_CHANGE_TRANSLATION) !== 0;
    if (moves && (change.addr === undefined || change.length === undefined))
      refuse('IBV_REREG_MR_CHANGE_TRANSLATION needs addr and length');
    const access = (flags & IBV_REREG_MR_CHANGE_ACCESS) !== 0 ? (change.access ?? 0) : this.access;
    if (moves) return { addr: change.addr!, length: change.length!, iova: change.addr!, access };
    return {
      addr: this.addr,
      length: this.isImplicit ? Number.POSITIVE_INFINITY : this.length,
      iova: this.iova,
      access,
    };
  }

  stats(): { pageFaults: number; pageInvalidations: number; pagePrefetches: number; residentPages: number } {
    const tables = this.implicit?.tables() ?? (this.table === undefined ? [] : [this.table]);
    let [faults, invalidations, resident] = [this.nrFaults, this.implicit?.nrInvalidations ?? 0, 0];
    for (const table of tables) {
      faults += table.region.nrFaults();
      invalidations += table.nrInvalidations;
      resident += table.region.nrEntries();
    }
    if (this.pinned !== undefined) resident = this.nrPages;
    return {
      pageFaults: faults + (this.implicit?.nrFaults ?? 0),
      pageInvalidations: invalidations,
      pagePrefetches: this.nrPrefetches,
      residentPages: resident,
    };
  }

  /** Its shared words, and those of its children. */
  liveRegions(): Region[] {
    if (!this.isLive) return [];
    return [this.region!, ...(this.implicit?.tables() ?? []).map(({ region }) => region)];
  }
}
