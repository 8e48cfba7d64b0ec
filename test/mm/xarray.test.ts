import fc from 'fast-check';
import { expect, test } from 'vitest';
import { XA_MARK_DIRTY, XA_MARK_WRITEBACK, XA_MAX_INDEX, XArray, type XaMark } from '../../src/mm/file/xarray.js';

/** Indices of all heights, some close together. */
const index = fc.oneof(
  fc.nat(600),
  fc.nat(2 ** 18 + 600),
  fc.integer({ min: 0, max: XA_MAX_INDEX - 1 }),
  fc.constantFrom(0, 511, 512, 2 ** 18 - 1, 2 ** 18, 2 ** 27 - 1, 2 ** 27, XA_MAX_INDEX - 1),
);
const value = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const mark = fc.constantFrom<XaMark>(XA_MARK_DIRTY, XA_MARK_WRITEBACK);
const step = fc.oneof(
  fc.record({ op: fc.constant('set' as const), index, value }),
  fc.record({ op: fc.constant('erase' as const), at: fc.nat() }),
  fc.record({ op: fc.constant('mark' as const), at: fc.nat(), mark }),
  fc.record({ op: fc.constant('unmark' as const), at: fc.nat(), mark }),
  fc.record({ op: fc.constant('seek' as const), index, length: fc.nat(2 ** 19), mark }),
);

test('N29: an XArray answers as a map does, marks and walks included', () => {
  const property = fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
    const xa = new XArray();
    const model = new Map<number, number>();
    const marks = [new Set<number>(), new Set<number>()];
    const pick = (at: number) => [...model.keys()][at % Math.max(1, model.size)];
    for (const s of steps) {
      if (s.op === 'set') {
        expect(xa.set(s.index, s.value)).toBe(model.get(s.index) ?? 0);
        if (s.value === 0) {
          model.delete(s.index);
          for (const m of marks) m.delete(s.index);
        } else model.set(s.index, s.value);
      } else if (s.op === 'erase') {
        const i = pick(s.at);
        if (i === undefined) continue;
        expect(xa.set(i, 0)).toBe(model.get(i));
        model.delete(i);
        for (const m of marks) m.delete(i);
      } else if (s.op === 'mark') {
        const i = pick(s.at);
        if (i === undefined) continue;
        expect(xa.setMark(i, s.mark)).toBe(!marks[s.mark]!.has(i));
        marks[s.mark]!.add(i);
      } else if (s.op === 'unmark') {
        const i = pick(s.at) ?? 7;
        expect(xa.clearMark(i, s.mark)).toBe(marks[s.mark]!.delete(i));
      } else {
        const end = Math.min(s.index + s.length, XA_MAX_INDEX);
        const first = (set: Iterable<number>) =>
          Math.min(...[...set].filter((i) => i >= s.index && i < end), XA_MAX_INDEX);
        const orNone = (i: number) => (i === XA_MAX_INDEX ? -1 : i);
        expect(xa.next(s.index, end)).toBe(orNone(first(model.keys())));
        expect(xa.nextMarked(s.index, end, s.mark)).toBe(orNone(first(marks[s.mark]!)));
      }
      expect(xa.size).toBe(model.size);
      expect([xa.nrMarked(0), xa.nrMarked(1)]).toEqual([marks[0]!.size, marks[1]!.size]);
    }
    for (const [i, v] of model) expect([i, xa.get(i)]).toEqual([i, v]);
  });
  fc.assert(property, { numRuns: 300 });
});
