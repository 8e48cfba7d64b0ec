import fc from 'fast-check';
import { expect, test } from 'vitest';
import { POOL_GENERATION } from '../../src/kvm/shadowpool.js';
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W } from '../../src/riscv/index.js';
import { ShadowWorld, SLOTS } from './shadowworld.js';

/**
 * Shadow paging against the history of every pte: tables that are changed, shared, used again for something else, at several levels and in
 * several address spaces; fences of every kind; superpages; frames that go; two harts by two threads' views; few pages, so that
 * they are evicted all the time.
 */

type Step = (w: ShadowWorld) => void;

const RWUA = PTE_V | PTE_R | PTE_W | PTE_U | PTE_A;
/** Few, and used for anything: roots, tables and data. */
const TABLES = [2, 3, 4, 5, 6, 7];
const DATA = [8, 9, 10, 11];
const SUPERPAGES = [0, 512];

const table = fc.constantFrom(...TABLES);
const slot = fc.constantFrom(...SLOTS.slice(0, 2));
const hart = fc.nat(1);
const asid = fc.nat(1);
const vpn = fc
  .tuple(fc.constantFrom(0, 1), slot, fc.constantFrom(...SLOTS))
  .map(([upper, middle, lower]) => upper * 2 ** 18 + middle * 512 + lower);
const leafFlags = fc.constantFrom(
  RWUA | PTE_D,
  RWUA,
  RWUA & ~PTE_W,
  (RWUA | PTE_D) & ~PTE_A,
  (RWUA | PTE_D) & ~PTE_U,
  (RWUA | PTE_D) & ~PTE_V,
);

const pointer = fc.tuple(table, slot, table).map(
  ([t, s, to]): Step =>
    (w) =>
      w.writePte(t, s, to, PTE_V),
);
const leaf = fc.tuple(table, fc.constantFrom(...SLOTS), fc.constantFrom(...DATA), leafFlags).map(
  ([t, s, to, flags]): Step =>
    (w) =>
      w.writePte(t, s, to, flags),
);
const superpage = fc.tuple(table, slot, fc.constantFrom(...SUPERPAGES), leafFlags).map(
  ([t, s, to, flags]): Step =>
    (w) =>
      w.writePte(t, s, to, flags),
);
const nothing = fc.tuple(table, slot).map(
  ([t, s]): Step =>
    (w) =>
      w.writePte(t, s, 0, 0),
);
const access = fc.tuple(hart, vpn, fc.constantFrom(0 as const, 1 as const), fc.nat(7)).map(
  ([h, v, kind, late]): Step =>
    (w) =>
      w.access(w.harts[h]!, v, kind, late > 0),
);
const enter = hart.map(
  (h): Step =>
    (w) =>
      w.enter(w.harts[h]!),
);
const fence = fc.tuple(hart, fc.option(vpn, { nil: undefined }), fc.option(asid, { nil: undefined })).map(
  ([h, v, a]): Step =>
    (w) =>
      w.fence(w.harts[h]!, v, a),
);
/** A pte that is in use is changed; most often it is fenced for and used at once, its table perhaps not in memory. */
const reuse = fc
  .record({
    h: hart,
    v: vpn,
    flags: leafFlags,
    to: fc.option(fc.constantFrom(...DATA)),
    fences: fc.nat(5),
    absent: fc.boolean(),
    kind: fc.constantFrom(0 as const, 1 as const),
  })
  .map(({ h, v, flags, to, fences, absent, kind }): Step => {
    return (w) => {
      const own = w.harts[h]!;
      w.access(own, v ^ 1, 0);
      w.access(own, v, 0);
      const found = w.leafOf(own.root, v);
      if (found === undefined) return;
      w.writePte(found.table, found.slot, found.gfn < 512 && found.gfn > 1 ? (to ?? found.gfn) : found.gfn, flags);
      if (absent) w.swapOut(found.table);
      if (fences > 0) w.fence(own, fences < 3 ? v : undefined, fences === 4 ? own.asid : undefined);
      w.access(own, v ^ 1, 0);
      w.access(own, v, kind);
    };
  });
/** One hart has walked, but not entered what it found, when the other changes the pte, fences, and looks for itself. */
const overtake = fc.tuple(hart, vpn, fc.constantFrom(...DATA), fc.boolean()).map(
  ([h, v, to, all]): Step =>
    (w) => {
      const [own, other] = [w.harts[h]!, w.harts[1 - h]!];
      w.access(own, v, 0, false);
      if (own.pending === undefined) return;
      const { tables, level } = own.walk;
      w.writePte(tables[level]!, (v >>> (9 * level)) & 511, level > 0 ? 0 : to, RWUA | PTE_D);
      w.fence(other, all ? undefined : v, undefined);
      w.access(other, v, 0);
      w.enter(own);
      other.tlb.clear();
      w.access(other, v, 0);
    },
);
/** More than the log keeps. */
const manyFences = fc.tuple(hart, vpn).map(
  ([h, v]): Step =>
    (w) => {
      for (let i = 0; i < 70; i++) w.fence(w.harts[h]!, v, undefined);
    },
);
const switchTo = fc.tuple(hart, fc.constantFrom(2, 3, 4), asid).map(
  ([h, root, a]): Step =>
    (w) =>
      w.switchTo(w.harts[h]!, root, a),
);
const anyGfn = fc.constantFrom(...TABLES, ...DATA, 0, 1, 511, 512, 513, 1023);
const swapOut = fc.tuple(anyGfn, hart).map(
  ([gfn, h]): Step =>
    (w) =>
      w.swapOut(gfn, h),
);
const age = fc.tuple(anyGfn, hart).map(
  ([gfn, h]): Step =>
    (w) =>
      w.age(gfn, h),
);

/** The use of a page shows, again and again. */
const useAndAge = fc.tuple(hart, vpn, hart).map(
  ([h, v, ager]): Step =>
    (w) => {
      const own = w.harts[h]!;
      for (let i = 0; i < 3; i++) {
        w.access(own, v, 0);
        const used = own.tlb.get(v);
        if (used !== undefined) w.age(used.gfn, ager);
      }
    },
);

const step = fc.oneof(
  { weight: 4, arbitrary: pointer },
  { weight: 4, arbitrary: leaf },
  { weight: 2, arbitrary: superpage },
  { weight: 1, arbitrary: nothing },
  { weight: 24, arbitrary: access },
  { weight: 2, arbitrary: enter },
  { weight: 4, arbitrary: fence },
  { weight: 1, arbitrary: manyFences },
  { weight: 3, arbitrary: reuse },
  { weight: 2, arbitrary: overtake },
  { weight: 3, arbitrary: switchTo },
  { weight: 3, arbitrary: swapOut },
  { weight: 3, arbitrary: age },
  { weight: 2, arbitrary: useAndAge },
);

/** Tables that lead somewhere, so that most steps do something. */
function start(nrPages: number): ShadowWorld {
  const w = new ShadowWorld(nrPages);
  for (const [t, to] of [
    [2, 5],
    [3, 5],
    [4, 6],
    [5, 7],
    [6, 7],
  ] as const)
    for (const s of [0, 1]) w.writePte(t, s, to, PTE_V);
  for (const s of SLOTS) w.writePte(7, s, 8 + (s & 1), RWUA | PTE_D);
  for (const h of w.harts) w.fence(h, undefined, undefined);
  return w;
}

function run(nrPages: number, generation: number, steps: Step[]): ShadowWorld {
  const w = start(nrPages);
  if (generation > 0) {
    // As after so many fences.
    for (const s of SLOTS) w.access(w.harts[0]!, s, 0);
    for (const h of w.harts) w.fence(h, undefined, undefined);
    w.harts[0]!.shadow.pool.words.writeOnce(POOL_GENERATION, generation);
    for (const h of w.harts) w.fence(h, undefined, undefined);
  }
  for (const one of steps) {
    one(w);
    w.check();
  }
  return w;
}

const NR_RUNS = Number(process.env.SHADOW_RUNS ?? 200);

test('S9 N3 N5 N14: nothing is used that no pte since the fences allows, whatever is shared, evicted or taken away', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(3, 5, 8, 24),
      fc.constantFrom(0, 0x7fff0000 - 5, 0x7fffffff - 40),
      fc.array(step, { minLength: 40, maxLength: 160 }),
      (nrPages, generation, steps) => {
        run(nrPages, generation, steps);
      },
    ),
    { numRuns: NR_RUNS, ...(process.env.SEED && { seed: Number(process.env.SEED) }) },
  );
}, 120_000);

test('a walk that a fence overtook leaves nothing behind', () => {
  const w = start(8);
  const [a, b] = w.harts as [ShadowWorld['harts'][0], ShadowWorld['harts'][0]];
  w.access(a, 0, 0, false);
  w.writePte(7, 0, 10, RWUA | PTE_D);
  w.fence(b, undefined, undefined);
  w.access(b, 1, 0);
  w.enter(a);
  expect(a.tlb.get(0)!.gfn).toBe(8);
  w.access(b, 0, 0);
  expect(b.tlb.get(0)!.gfn).toBe(10);
});

test('an address space that shares tables finds them filled', () => {
  const w = start(24);
  const [a, b] = w.harts as [ShadowWorld['harts'][0], ShadowWorld['harts'][0]];
  for (const s of SLOTS) w.access(a, s, 0);
  const { installs } = a.shadow.stats();
  w.switchTo(b, 3, 1);
  w.access(b, 0, 0);
  for (const s of SLOTS) w.access(b, s, 0);
  w.switchTo(b, 3, 0);
  for (const s of SLOTS) w.access(b, s, 0);
  // The first walk of each new root alone.
  expect(a.shadow.stats().installs).toBe(installs + 2);
});

test('a fence of everything drops what has changed, and keeps the rest', () => {
  const w = start(24);
  const [a] = w.harts as [ShadowWorld['harts'][0]];
  for (const s of SLOTS) w.access(a, s, 0);
  w.writePte(7, 1, 10, RWUA | PTE_D);
  w.fence(a, undefined, undefined);
  const { installs, dropped } = a.shadow.stats();
  for (const s of SLOTS) w.access(a, s, 0);
  expect(a.shadow.stats()).toMatchObject({ installs: installs + 1, dropped: dropped + 1 });
  expect(a.tlb.get(1)!.gfn).toBe(10);
});

test('a superpage that has become dirty is found writable, not walked for each time', () => {
  const w = start(24);
  const [a] = w.harts as [ShadowWorld['harts'][0]];
  w.writePte(5, 0, 0, RWUA);
  w.fence(a, undefined, undefined);
  w.access(a, 1, 0);
  w.access(a, 1, 1);
  const { installs } = a.shadow.stats();
  a.tlb.clear();
  w.access(a, 1, 1);
  expect(a.shadow.stats().installs).toBe(installs);
});
