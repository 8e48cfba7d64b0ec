import { FAULT_FLAG_WRITE, Host, MAP_ANONYMOUS, MAP_PRIVATE, type Mm, PAGE_SIZE } from '../src/mm/index.js';
import { digits, markdownTable, median, option, quantile } from './lib/common.js';
import { instructionsPerCall } from './lib/insns.js';
import { registerDriver } from './lib/notifydriver.js';

/**
 * What a notifier costs the one who takes pages away: MADV_DONTNEED of 512 present pages in one call, and page by page, with 0, 1, 2, 4, 16 and 1000
 * subscriptions on the mm, of which one covers the pages (none of 0). And with 1, 2, 4 and 16 that all do.
 *
 * The driver (lib/notifydriver.ts) keeps a flat table and an InvalidateSeq. The cost is what comes on top of the same call with nothing registered, in turn, as
 * medians with their quartiles.
 *
 * A call is counted in instructions too (lib/insns.ts), in programs that do nothing else: without hooks (CONFIG_PTE_NOTIFIERS false), with nothing registered, and
 * with one driver.
 *
 *   npm run bench -- notify [--rounds 200]
 */

const NR_PAGES = 512;
const nrRounds = Number(option('rounds', '200'));
/** Linux KVM's notifiers on a machine of this kind: a page of a range, and a page by itself. */
const KVM_RANGE_NS = [72, 89];
const KVM_PAGE_NS = 370;
const BAR_RANGE_NS = 6;
const BAR_PAGE_NS = 40;

/** One for all of them, as a machine has one. */
const host = new Host({ frames: NR_PAGES + 64, arenaBytes: 2 ** 20 });

class World {
  readonly name: string;
  readonly range: number[] = [];
  readonly page: number[] = [];
  private readonly mm: Mm;
  private readonly va: number;

  /** `seq`: the driver counts brackets, as one with threads must; without, it only zaps. */
  constructor(name: string, nrConcerned: number, nrOthers: number, seq = true) {
    this.name = name;
    this.mm = host.createMm();
    this.va = this.mm.mmap(2 ** 30, NR_PAGES * PAGE_SIZE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
    for (let k = 0; k < nrOthers; k++)
      registerDriver(host, this.mm, this.va + (k + 2) * NR_PAGES * PAGE_SIZE, NR_PAGES, seq);
    for (let k = 0; k < nrConcerned; k++) registerDriver(host, this.mm, this.va, NR_PAGES, seq);
  }

  private touch(): void {
    for (let page = 0; page < NR_PAGES; page++) {
      const pfn = this.mm.tryGetPage(this.va + page * PAGE_SIZE, FAULT_FLAG_WRITE);
      this.mm.putPage(pfn);
    }
  }

  private nsPerPage(work: () => void): number {
    this.touch();
    const began = performance.now();
    work();
    return ((performance.now() - began) * 1e6) / NR_PAGES;
  }

  measure(): void {
    this.range.push(this.nsPerPage(() => this.mm.madviseDontneed(this.va, NR_PAGES * PAGE_SIZE)));
    this.page.push(
      this.nsPerPage(() => {
        for (let page = 0; page < NR_PAGES; page++) this.mm.madviseDontneed(this.va + page * PAGE_SIZE, PAGE_SIZE);
      }),
    );
  }
}

const bare = new World('nothing registered', 0, 0);
const others = [1, 2, 4, 16, 1000].map((n) => new World(`${n}, one concerned`, 1, n - 1));
const all = [2, 4, 16].map((n) => new World(`${n}, all concerned`, n, 0));
const none = new World('1000, none concerned', 0, 1000);
/** A driver of one thread that needs no sequence count: what is left is mm's own. */
const zapOnly = new World('1, zaps and nothing else', 1, 0, false);
const worlds = [bare, none, zapOnly, ...others, ...all];

for (let n = 0; n < 50; n++) for (const world of worlds) world.measure();
for (const { range, page } of worlds) range.length = page.length = 0;
for (let n = 0; n < nrRounds; n++) for (const world of worlds) world.measure();

/** What comes on top of the bare call of the same round: median, and its quartiles. */
function above(mine: readonly number[], bareOnes: readonly number[]): { ns: number; text: string } {
  const diffs = mine.map((ns, round) => ns - bareOnes[round]!);
  const ns = median(diffs);
  return { ns, text: `${ns.toFixed(1)} (${quantile(diffs, 0.25).toFixed(1)} to ${quantile(diffs, 0.75).toFixed(1)})` };
}

const rows = worlds.slice(1).map((world) => {
  const [range, page] = [above(world.range, bare.range), above(world.page, bare.page)];
  return [world.name, range.text, page.text];
});
const bareRow = [bare.name, `${digits(median(bare.range))} bare`, `${digits(median(bare.page))} bare`];
const linux = ["Linux KVM's notifier", `${KVM_RANGE_NS.join(' to ')}`, `${KVM_PAGE_NS}`];
const head = ['subscriptions', 'a page of a range of 512, ns above bare', 'a page by itself, ns above bare'];
process.stdout.write(`${markdownTable(head, [bareRow, ...rows, linux])}\n\n`);

const range1 = above(others[0]!.range, bare.range).ns;
const page1 = above(others[0]!.page, bare.page).ns;
const verdict = (ns: number, bar: number) => `${ns.toFixed(1)} ns, bar ${bar} ns: ${ns <= bar ? 'met' : 'MISSED'}`;
process.stdout.write(
  `range, one driver: ${verdict(range1, BAR_RANGE_NS)}; Linux takes ${digits(KVM_RANGE_NS[0]! / range1)} times that\n`,
);
process.stdout.write(
  `one page, one driver: ${verdict(page1, BAR_PAGE_NS)}; Linux takes ${digits(KVM_PAGE_NS / page1)} times that\n`,
);
const per = (world: World, n: number) => (above(world.range, bare.range).ns / n).toFixed(1);
process.stdout.write(
  `a range, for each of 2, 4, 16 concerned drivers: ${all.map((w, i) => per(w, [2, 4, 16][i]!)).join(', ')} ns a page\n`,
);

/** The program of bench/lib/notifyloop.ts with the hooks or without, and with no driver, one that zaps, or one that counts brackets too. */
async function instructions(hooks: boolean, driver: 'none' | 'zaps' | 'counts'): Promise<number> {
  const flags = { __CONFIG_PTE_NOTIFIERS__: String(hooks), __CONFIG_LOCKDEP__: 'false' };
  return instructionsPerCall('bench/lib/notifyloop.ts', { ...flags, __DRIVER__: JSON.stringify(driver) });
}

try {
  const off = await instructions(false, 'none');
  const on = await instructions(true, 'none');
  const zaps = await instructions(true, 'zaps');
  const counts = await instructions(true, 'counts');
  process.stdout.write(
    `instructions of MADV_DONTNEED of one page: ${off.toFixed(0)} without hooks, ${on.toFixed(0)} with nothing registered, ` +
      `${zaps.toFixed(0)} with a driver that zaps, ${counts.toFixed(0)} with one that counts brackets too\n`,
  );
} catch (error) {
  process.stdout.write(`instructions NOT COUNTED: ${String(error)}\n`);
}
