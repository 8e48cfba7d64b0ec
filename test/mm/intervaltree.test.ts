import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type IntervalNode, IntervalTree } from '../../src/base/index.js';

const interval = fc
  .tuple(fc.nat(30), fc.integer({ min: 1, max: 10 }))
  .map(([start, len]) => ({ start, end: start + len }));

test('an interval tree answers as a list does, over random insertions and removals', () => {
  const step = fc.record({ interval, remove: fc.option(fc.nat(20)), query: interval });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const tree = new IntervalTree<number>();
      const list: IntervalNode<number>[] = [];
      steps.forEach((s, k) => {
        list.push(tree.insert(s.interval.start, s.interval.end, k));
        if (s.remove !== null && s.remove < list.length) {
          const [node] = list.splice(s.remove, 1);
          expect(tree.remove(node!)).toBe(true);
          expect(tree.remove(node!)).toBe(false);
        }
        const hits = list.filter((n) => n.start < s.query.end && n.end > s.query.start);
        const found = tree.overlapping(s.query.start, s.query.end);
        expect([...found].sort((a, b) => a - b)).toEqual(hits.map((n) => n.value).sort((a, b) => a - b));
        expect(tree.size).toBe(list.length);
      });
    }),
  );
});

test('a visit goes by start and stops when it is told to', () => {
  const tree = new IntervalTree<string>();
  tree.insert(5, 9, 'b');
  tree.insert(1, 6, 'a');
  tree.insert(8, 9, 'c');
  const seen: string[] = [];
  expect(tree.visit(0, 9, (v) => seen.push(v) === 2)).toBe(true);
  expect(seen).toEqual(['a', 'b']);
  expect(tree.visit(9, 10, () => true)).toBe(false);
});
