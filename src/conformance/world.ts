import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../mm/index.js';
import type { ConformanceAdapter, ConformanceInstance } from './adapter.js';

/**
 * What one case runs in: a host with few frames, an mm with NR_PAGES pages, an instance over them, and what each page must hold. Freed frames are filled
 * with a pattern, and `foreign` fills them with another mm's data, so that a stale entry shows something else than it must.
 *
 * Use: `World.create`, operations, `check`, `end`, which looks for what is left behind.
 */
export const NR_PAGES = 16;
const NR_FRAMES = 192;
const FOREIGN = 0xee;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
/** Turns of the event loop that any access may take. */
const MAX_TURNS = 3000;

export class World {
  readonly adapter: ConformanceAdapter;
  readonly host: Host;
  readonly mm: Mm;
  readonly va: number;
  instance!: ConformanceInstance;
  /** By page; undefined: not mapped. */
  readonly model: (number | undefined)[] = new Array(NR_PAGES).fill(0);
  private readonly nrFree: number;

  private constructor(adapter: ConformanceAdapter) {
    this.adapter = adapter;
    this.host = new Host({
      arenaBytes: 2 ** 20,
      ...adapter.hostOptions,
      ...{ frames: NR_FRAMES, swap: new MemorySwap({ sizeBytes: 2 ** 22 }), debug: true },
    });
    this.nrFree = this.host.frames.nrFree;
    this.mm = this.host.createMm({ name: 'subject' });
    // Room around it: nothing merges with it.
    this.va = this.mm.mmap(2 ** 32, NR_PAGES * PAGE_SIZE, RW, ANON | MAP_FIXED);
  }

  static async create(adapter: ConformanceAdapter): Promise<World> {
    const world = new World(adapter);
    world.instance = await adapter.create(world.mm, world.va, NR_PAGES * PAGE_SIZE);
    return world;
  }

  at(page: number): number {
    return this.va + page * PAGE_SIZE;
  }

  /** Writes through the host: page p holds `first` + p. */
  fill(first: number): void {
    for (let page = 0; page < NR_PAGES; page++) this.write(page, first + page);
  }

  write(page: number, value: number): void {
    this.mm.writeSync(this.at(page), new Uint8Array([value]));
    this.model[page] = value;
  }

  /** What the host sees. */
  read(page: number): number {
    const byte = new Uint8Array(1);
    this.mm.readSync(this.at(page), byte);
    return byte[0]!;
  }

  async load(page: number): Promise<number> {
    return this.within(this.instance.load(this.at(page)), `a load of page ${page}`);
  }

  async store(page: number, value: number): Promise<void> {
    await this.within(this.instance.store(this.at(page), value), `a store to page ${page}`);
    this.model[page] = value;
  }

  /** An access that hangs is a failure, and no hang. */
  async within<T>(access: T | Promise<T>, what: string): Promise<T> {
    let done = false;
    const settled = Promise.resolve(access).finally(() => (done = true));
    settled.catch(() => {});
    for (let n = 0; n < MAX_TURNS && !done; n++) await this.turn();
    if (!done) fail(`${what} does not end: does it wait for a bracket that is over?`);
    return settled;
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.host.defer(resolve));
  }

  /** Every page, through the driver and through the host, and with the frames that were given up in other hands. */
  async check(): Promise<void> {
    const other = this.foreign();
    for (let page = 0; page < NR_PAGES; page++) await this.checkPage(page);
    other.exit();
    for (let page = 0; page < NR_PAGES; page++) await this.checkPage(page);
    this.checkPoison();
  }

  async checkPage(page: number): Promise<void> {
    const wanted = this.model[page];
    if (wanted === undefined) return this.refuses(page);
    const seen = await this.load(page);
    if (seen !== wanted) fail(`page ${page} shows ${describe(seen)}, not ${wanted}`);
    const hosts = this.read(page);
    if (hosts !== wanted) fail(`the host finds ${describe(hosts)} in page ${page}, not ${wanted}: a write was lost`);
  }

  async refuses(page: number): Promise<void> {
    let seen: number;
    try {
      seen = await this.load(page);
    } catch (error) {
      if (error instanceof Error && error.message.includes('does not end')) throw error;
      return;
    }
    fail(`page ${page}, which may not be read, shows ${describe(seen)}`);
  }

  async refusesStore(page: number): Promise<void> {
    const kept = this.model[page];
    try {
      await this.store(page, 200);
    } catch (error) {
      if (error instanceof Error && error.message.includes('does not end')) throw error;
      return;
    } finally {
      this.model[page] = kept;
    }
    fail(`page ${page}, which may not be written, was`);
  }

  /** Another mm has most of the free frames now. */
  foreign(): Mm {
    const mm = this.host.createMm({ name: 'foreign' });
    const nr = Math.max(1, this.host.frames.nrFree - 40);
    const va = mm.mmap(0, nr * PAGE_SIZE, RW, ANON);
    const bytes = new Uint8Array(PAGE_SIZE).fill(FOREIGN);
    for (let page = 0; page < nr; page++) mm.writeSync(va + page * PAGE_SIZE, bytes);
    return mm;
  }

  /** Takes every page that can be taken. Returns how many of the subject's are left. */
  reclaim(): number {
    for (let n = 0; n < 40 && this.mm.residentPages > 0; n++) this.host.reclaim.shrink(true, true, true);
    return this.mm.residentPages;
  }

  remap(page: number, nrPages: number): void {
    this.mm.mmap(this.at(page), nrPages * PAGE_SIZE, RW, ANON | MAP_FIXED);
    this.model.fill(0, page, page + nrPages);
  }

  checkPoison(): void {
    for (const sub of this.mm.notifiers.all())
      if (sub.poisoned !== undefined) fail(`the driver broke the contract: ${sub.poisoned}`);
    if (this.host.vmstat.poisoned > 0) fail('the driver broke the contract');
  }

  /** Nothing may be left: no reference, no frame, no slot, no subscription. */
  async end(): Promise<void> {
    this.checkPoison();
    await this.instance.destroy();
    checkHost(this.host);
    const { frames, swap, mms } = this.host;
    for (const mm of [...mms]) mm.exit();
    while (this.host.reclaim.shrink(true, true, true) > 0);
    if (frames.nrFree !== this.nrFree) fail(`${this.nrFree - frames.nrFree} frames are not free at the end`);
    if (swap.nrFree !== swap.nrSlots) fail(`${swap.nrSlots - swap.nrFree} swap slots are not free at the end`);
    await this.host.stop();
  }
}

function describe(value: number): string {
  if (value === FOREIGN) return `${value} (another's data)`;
  return value === 0x6b ? `${value} (a freed frame)` : `${value}`;
}

export function fail(message: string): never {
  throw new Error(message);
}

export function expectEqual<T>(seen: T, wanted: T, what: string): void {
  if (seen !== wanted) fail(`${what} is ${String(seen)}, not ${String(wanted)}`);
}
