import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KernelError } from '../../src/base/index.js';
import { checkHost, Host, MADV_FREE, type Mm } from '../../src/mm/index.js';
import { FaultySwap } from '../mm/faultyswap.js';
import { TestDriver } from '../mm/testdriver.js';

/**
 * Random families of mms on one small host against a naive model: each mm is a map from pages to bytes, a fork copies the map. After each
 * step the whole state is checked. Each mm has an external MMU whose every access is checked against the frames' generations.
 */

const PAGE = 4096;
const BASE = 0x1000_0000;
const NR_PAGES = 64;
const NR_FRAMES = 96;
const MAX_MMS = 6;

interface Process {
  readonly mm: Mm;
  readonly driver: TestDriver;
  readonly model: Map<number, number>;
}

interface World {
  readonly host: Host;
  readonly swap: FaultySwap;
  processes: Process[];
}

const va = (page: number) => BASE + page * PAGE;

function addProcess(w: World, mm: Mm, model: Map<number, number>): void {
  w.processes.push({ mm, driver: new TestDriver(mm), model });
}

/** With `sameFilled` hardly a page takes a slot. */
function newWorld(sameFilled: boolean): World {
  const swap = new FaultySwap(1024);
  const host = new Host({
    ...{ frames: NR_FRAMES, arenaBytes: 65536, swap, sameFilled, debug: true },
    defer: (fn) => setImmediate(fn),
  });
  const w: World = { host, swap, processes: [] };
  const mm = host.createMm();
  mm.mmap(va(0), NR_PAGES * PAGE, 3, 0x32);
  addProcess(w, mm, new Map([...Array(NR_PAGES).keys()].map((p) => [p, 0])));
  return w;
}

async function refusedWith(code: string, body: () => Promise<unknown>): Promise<boolean> {
  try {
    await body();
    return false;
  } catch (error) {
    if (error instanceof KernelError && error.code === code) return true;
    throw error;
  }
}

type Command = (w: World) => Promise<void>;

const who = fc.nat(MAX_MMS - 1);
const span = fc
  .tuple(fc.nat(NR_PAGES - 1), fc.integer({ min: 1, max: 20 }))
  .map(([a, n]) => [a, Math.min(a + n, NR_PAGES)] as const);
const byte = fc.integer({ min: 1, max: 255 });

const on = (body: (w: World, p: Process, a: number, b: number, value: number) => Promise<void>) =>
  fc.tuple(who, span, byte).map(
    ([k, [a, b], value]): Command =>
      (w) =>
        body(w, w.processes[k % w.processes.length]!, a, b, value),
  );

const write = on(async (_w, { mm, model }, a, b, value) => {
  for (let p = a; p < b; p++) {
    const no = await refusedWith('EFAULT', () => mm.write(va(p), new Uint8Array(PAGE).fill(value)));
    expect(no).toBe(!model.has(p));
    if (!no) model.set(p, value);
  }
});

const read = on(async (_w, process, a, b) => {
  for (let p = a; p < b; p++) await readPage(process, p);
});

async function readPage({ mm, model }: Process, p: number): Promise<void> {
  const bytes = new Uint8Array(PAGE);
  const no = await refusedWith('EFAULT', () => mm.read(va(p), bytes));
  expect(no).toBe(!model.has(p));
  if (!no) expect({ p, differs: bytes.findIndex((v) => v !== model.get(p)) }).toEqual({ p, differs: -1 });
}

const external = on(async (_w, { driver, model }, a, b, value) => {
  for (let p = a; p < b; p++) {
    if (!model.has(p)) continue;
    expect({ p, value: await driver.load(va(p)) }).toEqual({ p, value: model.get(p) });
    if (value % 2 === 0) continue;
    for (const offset of [0, PAGE - 1]) await driver.store(va(p) + offset, model.get(p)!);
  }
});

const fork: fc.Arbitrary<Command> = who.map((k) => async (w) => {
  if (w.processes.length === MAX_MMS) return;
  const parent = w.processes[k % w.processes.length]!;
  addProcess(w, parent.mm.fork(), new Map(parent.model));
});

const exit: fc.Arbitrary<Command> = who.map((k) => async (w) => {
  if (w.processes.length === 1) return;
  const [gone] = w.processes.splice(k % w.processes.length, 1);
  gone!.mm.exit();
});

const munmap = on(async (_w, { mm, model }, a, b) => {
  mm.munmap(va(a), (b - a) * PAGE);
  for (let p = a; p < b; p++) model.delete(p);
});

const mmap = on(async (_w, { mm, model }, a, b) => {
  mm.mmap(va(a), (b - a) * PAGE, 3, 0x32);
  for (let p = a; p < b; p++) model.set(p, 0);
});

const shrink: fc.Arbitrary<Command> = fc.tuple(fc.boolean(), fc.boolean()).map(([sync, desperate]) => async (w) => {
  for (let k = 0; k < 4; k++) w.host.reclaim.shrink(true, sync, desperate);
});

const compact: fc.Arbitrary<Command> = fc.boolean().map((blockable) => async (w) => {
  w.host.compact(blockable);
});

/** Takes pages to another place in the address space, and half of them back. */
const mremap = on(async (_w, { mm, model }, a, b) => {
  const far = BASE + 2 ** 30;
  for (let p = a; p < b; p++) {
    if (!model.has(p)) continue;
    expect(mm.mremap(va(p), PAGE, PAGE, 3, far)).toBe(far);
    expect(mm.mremap(far, PAGE, PAGE, 3, va(p))).toBe(va(p));
  }
});

/** Pages that may only be read for a while: nobody writes them, and they can be written again afterwards. */
const mprotect = on(async (_w, { mm, driver, model }, a, b, value) => {
  for (let p = a; p < b; p++) {
    if (!model.has(p)) continue;
    mm.mprotect(va(p), PAGE, 1);
    expect(await refusedWith('EFAULT', () => mm.write(va(p), new Uint8Array(1)))).toBe(true);
    expect(await refusedWith('EFAULT', () => driver.store(va(p), 0))).toBe(true);
    expect(await driver.load(va(p))).toBe(model.get(p));
    mm.mprotect(va(p), PAGE, 3);
    if (value % 2 === 0) await driver.store(va(p), model.get(p)!);
  }
});

/** Pages that are given up: zeros or what they were, until they are written again. */
const madviseFree = on(async (w, { mm, driver, model }, a, b, value) => {
  for (let p = a; p < b; p++) {
    if (!model.has(p)) continue;
    mm.madvise(va(p), PAGE, MADV_FREE);
    if (value % 3 === 0) await mm.write(va(p), new Uint8Array(PAGE).fill(value));
    if (value % 3 === 1) w.host.reclaim.shrink(true, true, true);
    const now = await driver.load(va(p));
    expect(value % 3 === 0 ? [value] : [0, model.get(p)]).toContain(now);
    if (value % 3 !== 0) await mm.write(va(p), new Uint8Array(PAGE).fill(now));
    model.set(p, now);
  }
});

const hold: fc.Arbitrary<Command> = fc.boolean().map((held) => async (w) => {
  w.swap.held = held;
  if (held) w.host.reclaim.shrink(true, false, true);
  w.swap.held = false;
  setTimeout(() => w.swap.pump(), 1);
});

async function run(sameFilled: boolean, commands: Command[]): Promise<void> {
  const w = newWorld(sameFilled);
  try {
    for (const command of commands) {
      await command(w);
      checkHost(w.host);
    }
    w.swap.pump();
    for (const process of w.processes) for (const p of process.model.keys()) await readPage(process, p);
    for (const { mm } of w.processes) mm.exit();
    await w.host.stop();
    checkHost(w.host);
    expect(w.host.frames.nrFree).toBe(NR_FRAMES);
    expect(w.host.swap.nrFree).toBe(w.host.swap.nrSlots);
    expect(w.host.anonVmas.nrLive).toBe(0);
    expect(w.host.tables.bytesInUse).toBe(0);
  } finally {
    w.swap.pump();
  }
}

test('N20 N22: families of forks agree with the model, under reclaim and with external MMUs', async () => {
  const command = fc.oneof(
    write,
    write,
    read,
    external,
    external,
    fork,
    fork,
    exit,
    munmap,
    mmap,
    mremap,
    compact,
    mprotect,
    madviseFree,
    shrink,
    hold,
  );
  const property = fc.asyncProperty(fc.boolean(), fc.array(command, { minLength: 5, maxLength: 50 }), run);
  await fc.assert(property, { numRuns: Number(process.env.MODEL_RUNS ?? 60) });
});
