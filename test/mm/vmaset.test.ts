import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkHost, Host, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, type Mm, PROT_READ } from '../../src/mm/index.js';
import { Vma } from '../../src/mm/vma/vma.js';
import { VmaSet } from '../../src/mm/vma/vmaset.js';

const PAGE = 4096;
const RW = 3;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const LIMIT = 200;

function newMm(): Mm {
  return new Host({ frames: 64, arenaBytes: 65536 }).createMm();
}

/** The naive set: an array that is searched from its start. */
class NaiveSet {
  readonly list: Vma[] = [];

  firstEndingAfter(vpn: number): Vma | undefined {
    return this.list.find((v) => v.endVpn > vpn);
  }

  insert(vma: Vma): void {
    this.list.push(vma);
    this.list.sort((a, b) => a.startVpn - b.startVpn);
  }

  remove(vma: Vma): void {
    this.list.splice(this.list.indexOf(vma), 1);
  }

  findHole(nrPages: number, from: number): number {
    for (let vpn = from; vpn + nrPages <= LIMIT; vpn++) {
      if (!this.list.some((v) => v.startVpn < vpn + nrPages && v.endVpn > vpn)) return vpn;
    }
    return -1;
  }
}

const step = fc.record({
  kind: fc.constantFrom('insert', 'insert', 'insert', 'remove', 'resize'),
  at: fc.nat(LIMIT - 1),
  nrPages: fc.integer({ min: 1, max: 12 }),
  query: fc.nat(LIMIT),
});

test('N21: the set of VMAs answers as a sorted array does, over random insertions, removals and changes of bounds', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const mm = newMm();
      const set = new VmaSet();
      const naive = new NaiveSet();
      for (const s of steps) {
        apply(mm, set, naive, s);
        expect(set.all()).toEqual(naive.list);
        expect(set.length).toBe(naive.list.length);
        expect(set.first).toBe(naive.list[0]);
        expect(set.all().map((v) => v.prev)).toEqual([undefined, ...naive.list].slice(0, naive.list.length));
        const hit = naive.firstEndingAfter(s.query);
        expect(set.firstEndingAfter(s.query)).toBe(hit);
        expect(set.find(s.query)).toBe(hit !== undefined && hit.startVpn <= s.query ? hit : undefined);
        expect(set.findHole(s.nrPages, s.query, LIMIT)).toBe(naive.findHole(s.nrPages, s.query));
      }
    }),
    { numRuns: 200 },
  );
});

function apply(
  mm: Mm,
  set: VmaSet,
  naive: NaiveSet,
  s: { kind: string; at: number; nrPages: number; query: number },
): void {
  const vma = naive.firstEndingAfter(s.at);
  if (s.kind === 'insert') {
    if (s.at + s.nrPages > LIMIT || (vma !== undefined && vma.startVpn < s.at + s.nrPages)) return;
    const added = new Vma(mm, s.at, s.at + s.nrPages, RW, 0, s.at);
    set.insert(added);
    naive.insert(added);
  } else if (vma !== undefined && s.kind === 'remove') {
    set.remove(vma);
    naive.remove(vma);
  } else if (vma !== undefined && vma.nrPages > 1) set.resize(vma, vma.startVpn + 1, vma.endVpn - (s.query & 1));
}

const BASE = 0x1000_0000;

/** An mm with `nr` VMAs of four pages, two apart. */
function crowdedMm(nr: number): Mm {
  const mm = newMm();
  for (let i = 0; i < nr; i++) mm.mmap(BASE + i * 6 * PAGE, 4 * PAGE, RW, ANON | MAP_FIXED);
  return mm;
}

/** Replaces the links and bounds of every VMA by accessors that count how often they are read. */
function countVisits(mm: Mm): () => number {
  let visits = 0;
  for (const vma of mm.vmas.all()) {
    for (const field of ['startVpn', 'left', 'right', 'next', 'prev', 'parent'] as const) {
      let value: unknown = vma[field];
      Object.defineProperty(vma, field, {
        get: () => {
          visits++;
          return value;
        },
        set: (to: unknown) => {
          value = to;
        },
      });
    }
  }
  return () => visits;
}

/** Reads of VMAs that one of each operation in the middle of `nr` VMAs takes. */
function visitsOf(nr: number): Record<string, number> {
  const mm = crowdedMm(nr);
  const at = (i: number) => BASE + ((nr >> 1) + i) * 6 * PAGE;
  const operations: [string, () => unknown][] = [
    ['find', () => expect(mm.findVma(at(1))?.start).toBe(at(1))],
    ['fixed mmap', () => mm.mmap(at(0) + 4 * PAGE, PAGE, PROT_READ, ANON | MAP_FIXED)],
    ['mmap at the end', () => expect(mm.mmap(0, 3 * PAGE, PROT_READ, ANON)).toBeGreaterThan(at(nr >> 1) - 6 * PAGE)],
    ['mmap that merges', () => mm.mmap(at(2) + 4 * PAGE, 2 * PAGE, RW, ANON | MAP_FIXED)],
    ['munmap of one', () => mm.munmap(at(-1), 4 * PAGE)],
    ['munmap that splits', () => mm.munmap(at(-2) + PAGE, PAGE)],
    ['mmap into a hole', () => expect(mm.mmap(0, 5 * PAGE, PROT_READ, ANON)).toBeLessThan(at(0))],
    ['munlock', () => mm.munlock(at(-3), 4 * PAGE)],
    ['madvise', () => mm.madviseDontneed(at(-3), 4 * PAGE)],
  ];
  const result: Record<string, number> = {};
  const visits = countVisits(mm);
  for (const [name, operation] of operations) {
    const before = visits();
    operation();
    result[name] = visits() - before;
  }
  checkHost(mm.host);
  return result;
}

test('an operation in an mm of 10 000 VMAs visits few more of them than in an mm of 16', () => {
  const few = visitsOf(16);
  const many = visitsOf(10_000);
  // Depth grows by log2(10 000 / 16) = 9.3 levels, of a treap with random priorities by up to some tens; each search goes down it a few times.
  for (const [name, visits] of Object.entries(many)) {
    expect({ name, visits, limit: visits < few[name]! + 1500 }).toMatchObject({ limit: true });
  }
});
