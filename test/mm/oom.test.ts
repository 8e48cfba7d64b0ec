import { expect, test } from 'vitest';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  FAULT_OOM,
  Host,
  type HostOptions,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  MMU_NOTIFY_UNMAP,
  type Mm,
  type MmOptions,
  mmuNotifierRegister,
  type OomReport,
} from '../../src/mm/index.js';
import { FaultySwap } from './faultyswap.js';
import { TestDriver } from './testdriver.js';

/** Memory that runs out: who is refused, who dies, and that nobody else notices. */

const PAGE = 4096;
const NR_PAGES = 100;
const NR_SLOTS = 64;

interface World {
  readonly host: Host;
  readonly reports: OomReport[];
}

function newWorld(options: Partial<HostOptions> = {}): World {
  const reports: OomReport[] = [];
  const swap = new MemorySwap({ sizeBytes: NR_SLOTS * PAGE });
  const onOom = (report: OomReport) => void reports.push(report);
  const defer = (fn: () => void) => void setImmediate(fn);
  return {
    host: new Host({
      frames: 64,
      // They run out of swap, whatever their pages hold.
      sameFilled: false,
      arenaBytes: 65536,
      swap,
      overcommit: 'always',
      debug: true,
      defer,
      onOom,
      ...options,
    }),
    reports,
  };
}

/** A user of one mm, page `p` of which holds `seed + p` all over. */
class User {
  readonly mm: Mm;
  readonly va: number;
  private readonly seed: number;
  private nrPages = 0;

  constructor(host: Host, seed: number, options: MmOptions = {}) {
    this.mm = host.createMm({ name: `user ${seed}`, ...options });
    this.seed = seed;
    this.va = this.mm.mmap(0, NR_PAGES * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  }

  async fill(nrPages: number): Promise<this> {
    for (; this.nrPages < nrPages; this.nrPages++) {
      await this.mm.write(this.va + this.nrPages * PAGE, new Uint8Array(PAGE).fill(this.seed + this.nrPages));
    }
    return this;
  }

  async check(): Promise<void> {
    const page = new Uint8Array(PAGE);
    for (let p = 0; p < this.nrPages; p++) {
      await this.mm.read(this.va + p * PAGE, page);
      expect({ p, bytes: new Set(page) }).toEqual({ p, bytes: new Set([(this.seed + p) & 255]) });
    }
  }
}

function nrPtes(mm: Mm): number {
  let nr = 0;
  mm.pageTable.visit(() => void nr++);
  return nr;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('the largest mm dies, the one that asked goes on, and the others keep what they have', async () => {
  const { host, reports } = newWorld();
  const small = await new User(host, 1).fill(10);
  const large = await new User(host, 2).fill(70);
  const asking = await new User(host, 3).fill(60);
  await asking.check();
  await small.check();
  await turn();
  expect(reports.map((report) => report.victim)).toEqual([large.mm]);
  expect(reports[0]!.text).toMatch(
    /^user 2 was killed, out of memory: user 3 needs a frame for address 0x[0-9a-f]+; of 64 frames 0 are pinned, /,
  );
  expect(reports[0]!.text).toMatch(/\n +3 +user 3 +\d+ +\d+ +\d+ +0 +\d+\n/);
  expect(host.vmstat.oomKill).toBe(1);
  checkHost(host);
  large.mm.exit();
  checkHost(host);
  await host.stop();
});

test('the victim is told by every call and fault; its exit is as any other', async () => {
  const { host } = newWorld();
  const victim = await new User(host, 1).fill(70);
  await new User(host, 2).fill(60);
  const { mm, va } = victim;
  expect(mm.tryGetPage(va, 0)).toBe(FAULT_OOM);
  expect(mm.tryGetPage(va + PAGE, FAULT_FLAG_WRITE)).toBe(FAULT_OOM);
  const killed = /^ENOMEM: \w+: user 1 was killed, out of memory: user 2 needs a frame for .*oomScoreAdj 0$/;
  await expect(mm.read(va, new Uint8Array(1))).rejects.toThrow(killed);
  await expect(mm.write(va, new Uint8Array(1))).rejects.toThrow(killed);
  expect(() => mm.faultInSync(va, 0)).toThrow(killed);
  expect(() => mm.mmap(0, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS)).toThrow(killed);
  expect(() => mm.munmap(va, PAGE)).toThrow(killed);
  expect(mm.residentPages).toBe(0);
  mm.exit();
  checkHost(host);
  await host.stop();
});

test('oomScoreAdj: -1000 is never killed, 1000 is killed first', async () => {
  const { host, reports } = newWorld();
  const dear = await new User(host, 1, { oomScoreAdj: -1000 }).fill(70);
  const cheap = await new User(host, 2, { oomScoreAdj: 1000 }).fill(5);
  const usual = await new User(host, 3).fill(54);
  await turn();
  expect(reports.map((report) => report.victim.name)).toEqual(['user 2']);
  expect(cheap.mm.oomKilled).toMatch(/oomScoreAdj 1000/);
  await expect(usual.fill(60)).rejects.toThrow(/ENOMEM: faultIn: user 3 was killed/);
  await dear.check();
  checkHost(host);
  await host.stop();
  for (const oomScoreAdj of [-1001, 1001, 0.5, Number.NaN]) {
    expect(() => host.createMm({ oomScoreAdj })).toThrow(
      /EINVAL: createMm: oomScoreAdj .* must be an integer from -1000/,
    );
  }
});

test('where all are protected, or there is but one, or the mode says so, the asker is refused and nobody dies', async () => {
  for (const [options, mmOptions, nrUsers] of [
    [{}, {}, 1],
    [{}, { oomScoreAdj: -1000 }, 3],
    [{ oom: 'refuse' }, {}, 3],
  ] as const) {
    const swap = new MemorySwap({ sizeBytes: 32 * PAGE });
    const { host, reports } = newWorld({ ...options, swap });
    const users = [...Array(nrUsers).keys()].map((seed) => new User(host, seed + 1, mmOptions));
    for (const user of users.slice(1)) await user.fill(10);
    await expect(users[0]!.fill(NR_PAGES)).rejects.toThrow(/ENOMEM: faultIn: no frame for .*nothing can be reclaimed/);
    for (const user of users) await user.check();
    expect([reports.length, host.vmstat.oomKill]).toEqual([0, 0]);
    checkHost(host);
    await host.stop();
  }
});

test('the victim waits for a page itself: it maps nothing any more, and is refused', async () => {
  const swap = new FaultySwap(NR_SLOTS);
  const { host } = newWorld({ swap });
  const victim = await new User(host, 1).fill(70);
  const asking = await new User(host, 2).fill(50);
  const swapped = [...Array(70).keys()]
    .map((p) => victim.va + p * PAGE)
    .find((va) => victim.mm.tryGetPage(va, 0) === -1)!;
  // Every frame is in use: the read of the page is under way while its owner dies.
  swap.held = true;
  const waiting = expect(victim.mm.read(swapped, new Uint8Array(1))).rejects.toThrow(/user 1 was killed/);
  await turn();
  expect(swap.nrHeld).toBeGreaterThan(0);
  expect(host.oom.outOfMemory({ mm: asking.mm, va: asking.va })).toBe(true);
  swap.held = false;
  swap.pump();
  await waiting;
  expect(victim.mm.residentPages).toBe(0);
  await asking.fill(70);
  await asking.check();
  checkHost(host);
  await host.stop();
});

test('of two that run out at the same time each is helped by the one death', async () => {
  const { host } = newWorld();
  const victim = await new User(host, 1).fill(90);
  const others = [new User(host, 2), new User(host, 3)];
  await Promise.all(others.map((user) => user.fill(40)));
  expect(host.vmstat.oomKill).toBe(1);
  expect(victim.mm.oomKilled).toBeDefined();
  for (const user of others) await user.check();
  checkHost(host);
  await host.stop();
});

test('N12 M13: a driver that refuses to be reaped is passed over; its pages go when it gives way, or at exit', async () => {
  for (const givesWay of [true, false]) {
    const { host, reports } = newWorld();
    const stubborn = new User(host, 1);
    const driver = new TestDriver(stubborn.mm);
    await stubborn.fill(60);
    for (let p = 0; p < 20; p++) await driver.load(stubborn.va + p * PAGE);
    const second = await new User(host, 2).fill(40);
    driver.refuse = true;
    const asking = await new User(host, 3).fill(36);
    await turn();
    expect(reports.map((report) => report.victim)).toEqual([stubborn.mm, second.mm]);
    expect(reports[0]!.framesFreed).toBe(0);
    expect(nrPtes(stubborn.mm)).toBe(60);
    checkHost(host);
    if (givesWay) {
      driver.refuse = false;
      await asking.fill(NR_PAGES);
      expect(nrPtes(stubborn.mm)).toBe(0);
      expect(host.vmstat.oomKill).toBe(2);
    }
    stubborn.mm.exit();
    expect([driver.table.size, driver.nrReleases, driver.nrStarts - driver.nrEnds]).toEqual([0, 1, 0]);
    await asking.check();
    checkHost(host);
    await host.stop();
  }
});

test('N1: reaping is an UNMAP bracket for each VMA that must not block, and nothing is closed', async () => {
  const { host } = newWorld();
  const { mm, va } = await new User(host, 1).fill(80);
  const events: string[] = [];
  mmuNotifierRegister(mm, va, va + NR_PAGES * PAGE, {
    invalidateRangeStart: (_sub, range) => {
      if (range.event === MMU_NOTIFY_UNMAP) events.push(`${range.start - va} ${range.end - va} ${range.blockable}`);
    },
    areaClosed: () => void events.push('closed'),
    release: () => void events.push('released'),
  });
  await new User(host, 2).fill(50);
  expect(events).toEqual([`0 ${NR_PAGES * PAGE} false`]);
  mm.exit();
  expect(events.slice(1)).toEqual([`0 ${NR_PAGES * PAGE} true`, 'closed', 'released']);
  await host.stop();
});

test('blocking callers have the same policy', async () => {
  const { host } = newWorld();
  const large = await new User(host, 1).fill(80);
  const small = new User(host, 2);
  for (let p = 0; p < 60; p++) small.mm.writeSync(small.va + p * PAGE, new Uint8Array(PAGE).fill(p));
  for (let p = 0; p < 60; p++) {
    const bytes = new Uint8Array(1);
    small.mm.readSync(small.va + p * PAGE, bytes);
    expect(bytes[0]).toBe(p);
  }
  expect(large.mm.oomKilled).toBeDefined();
  checkHost(host);
  await host.stop();
});
