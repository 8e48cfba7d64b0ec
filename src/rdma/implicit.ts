import type { Mm } from '../mm/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import { REGION_CHILD, REGION_WORDS, Region } from './nic/region.js';
import { CHILD_PAGES, childWord, DIRECTORY_WORDS } from './nic/regiontable.js';
import { type OdpDevice, OdpTable } from './odptable.js';

/**
 * An implicit region: all of an mm, by children of 2 MiB that come with the first fault in them and go when all of them is unmapped (Linux: mlx5's
 * implicit ODP regions). A directory of two levels in shared words leads to them.
 *
 *   bracket over a child, UNMAP           deregMr
 *   unmapped: to be destroyed, later      destroyAll
 *   destroy: it is still in the map?      destroy: takes it out of the map
 *
 * Required outcome: a child is destroyed once, whoever comes first (M40), and a fault that meets a child on its way out gets a new one (M41).
 */

const CHILD_BYTES = (REGION_WORDS + CHILD_PAGES) * 4;
const DIRECTORY_BYTES = DIRECTORY_WORDS * 4;

/** What the children need of their device. */
export interface ImplicitDevice extends OdpDevice {
  readonly host: {
    arenaAlloc(lenBytes: number, align: number): number;
    arenaFree(addr: number, lenBytes: number): void;
  };
  readonly words: Region['words'];
  defer(fn: () => void): void;
}

interface Child {
  readonly table: OdpTable;
  readonly addr: number;
}

export class ImplicitRegion {
  private readonly device: ImplicitDevice;
  private readonly mm: Mm;
  private readonly region: Region;
  /** By the number of 2 MiB of the mm. */
  private readonly children = new Map<number, Child>();
  /** Unplugged, with a subscription that a bracket keeps, and memory. */
  private readonly dying = new Set<Child>();
  private readonly middles: number[] = [];
  private nextKey = 1;
  nrInvalidations = 0;
  nrFaults = 0;
  nrRetries = 0;

  constructor(device: ImplicitDevice, mm: Mm, region: Region) {
    this.device = device;
    this.mm = mm;
    this.region = region;
  }

  /** The table for page `vpn`, made if need be. Throws KernelError ENOMEM (arena), EBUSY (a bracket is open), EFAULT. */
  childOf(vpn: number): OdpTable {
    return this.knownChild(vpn) ?? this.create(vpn >>> 9).table;
  }

  /** The table for page `vpn`, if there is one. */
  knownChild(vpn: number): OdpTable | undefined {
    return this.children.get(vpn >>> 9)?.table;
  }

  private create(number: number): Child {
    const { device, region } = this;
    const word = this.wordOf(number * CHILD_PAGES);
    const addr = device.host.arenaAlloc(CHILD_BYTES, 8);
    const { words } = device;
    for (let i = 0; i < CHILD_BYTES / 4; i++) words.writeOnce((addr >>> 2) + i, 0);
    const leaf = new Region(words, addr);
    const va = number * CHILD_PAGES * PAGE_SIZE;
    const flags = (region.flags() & 0xffff) | REGION_CHILD;
    const length = CHILD_PAGES * PAGE_SIZE;
    leaf.init({
      flags,
      pd: region.pd(),
      context: region.context(),
      iova: va,
      addr: va,
      length,
      tableAddr: addr + REGION_WORDS * 4,
      nrPages: CHILD_PAGES,
    });
    let table: OdpTable;
    try {
      table = new OdpTable(device, this.mm, leaf, () => this.unmapped(number));
    } catch (error) {
      device.host.arenaFree(addr, CHILD_BYTES);
      throw error;
    }
    // Tells it from a child that has lain at this address before.
    leaf.setKey(this.nextKey++);
    const child = { table, addr };
    this.children.set(number, child);
    words.store(word, addr);
    return child;
  }

  /** The directory's word for the child with page `vpn`; makes the second level. */
  private wordOf(vpn: number): number {
    const { words, host } = this.device;
    const table = this.region.table();
    if (words.load(table + (vpn >>> 18)) === 0) {
      const addr = host.arenaAlloc(DIRECTORY_BYTES, 8);
      for (let i = 0; i < DIRECTORY_WORDS; i++) words.writeOnce((addr >>> 2) + i, 0);
      this.middles.push(addr);
      words.store(table + (vpn >>> 18), addr >>> 2);
    }
    return childWord(words, table, vpn);
  }

  /** From inside a bracket: it may not be unsubscribed here (N10). */
  private unmapped(number: number): void {
    const child = this.children.get(number);
    if (child === undefined) return;
    this.device.defer(() => {
      // deregMr was faster, or another bracket, or it is in use again (M40).
      if (this.children.get(number) !== child || child.table.region.nrEntries() > 0) return;
      this.destroy(number, child);
    });
  }

  private destroy(number: number, child: Child): void {
    const { words } = this.device;
    this.children.delete(number);
    words.store(childWord(words, this.region.table(), number * CHILD_PAGES), 0);
    child.table.unplug();
    this.dying.add(child);
    this.finish(child);
  }

  private finish(child: Child): void {
    if (!this.dying.has(child)) return;
    if (!child.table.tryUnsubscribe()) {
      this.device.defer(() => this.finish(child));
      return;
    }
    this.dying.delete(child);
    this.nrInvalidations += child.table.nrInvalidations;
    this.nrFaults += child.table.region.nrFaults();
    this.nrRetries += child.table.region.nrRetries();
    this.device.host.arenaFree(child.addr, CHILD_BYTES);
  }

  /** All children, when no key names the region any more. */
  destroyAll(): void {
    for (const [number, child] of [...this.children]) this.destroy(number, child);
  }

  /** Whether a child's subscription still has to wait for a bracket. */
  get isDying(): boolean {
    return this.dying.size > 0;
  }

  /** After `destroyAll`, when none is dying. */
  freeDirectory(): void {
    for (const addr of this.middles.splice(0)) this.device.host.arenaFree(addr, DIRECTORY_BYTES);
  }

  tables(): OdpTable[] {
    return [...this.children.values()].map(({ table }) => table);
  }
}
