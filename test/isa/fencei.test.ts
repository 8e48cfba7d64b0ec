import { expect, test } from 'vitest';
import { HART_EXIT_BUDGET, HART_EXIT_REQUEST } from '../../src/riscv/index.js';
import { addi } from './assemble.js';
import { CODE, RAM_BASE, TestHart } from './testhart.js';

/** What fetches see of stores by others: another hart's thread, a device, the host. */

const A0 = 10;
const FENCE_I = 0x100f;

/** Runs `addi a0, x0, 1`, which somebody else then makes `addi a0, x0, 2`. */
function rewritten(): TestHart {
  const m = new TestHart();
  m.put(CODE, addi(A0, 0, 1));
  m.put(CODE + 0x1000, FENCE_I);
  m.step(BigInt(CODE));
  m.step(BigInt(CODE + 0x1000));
  m.step(BigInt(CODE));
  expect(m.hart.getX(A0)).toBe(1n);
  m.view.setUint32(CODE - RAM_BASE, addi(A0, 0, 2), true);
  return m;
}

test('N3: after fence.i a hart executes what others have written', () => {
  const m = rewritten();
  m.step(BigInt(CODE + 0x1000));
  m.step(BigInt(CODE));
  expect(m.hart.getX(A0)).toBe(2n);
});

test('N3: in doubt, records are used again only where the page is still the same', () => {
  const m = rewritten();
  m.engine.doubtCode();
  m.step(BigInt(CODE));
  expect(m.hart.getX(A0)).toBe(2n);
  const records = m.engine.records.get(m.hostPage(CODE));
  m.engine.doubtCode();
  expect(m.engine.records.get(m.hostPage(CODE))).toBe(records);
});

test('each word of a page counts', () => {
  const m = new TestHart();
  for (let word = 0; word < 1024; word++) {
    const records = m.engine.records.get(m.hostPage(CODE));
    m.view.setUint32(CODE - RAM_BASE + 4 * word, 0x80000000, true);
    m.engine.doubtCode();
    expect(m.engine.records.get(m.hostPage(CODE))).not.toBe(records);
  }
});

test('a request between two runs ends the next one at once, and only that', () => {
  const m = new TestHart();
  m.put(CODE, addi(A0, A0, 1));
  m.hart.pc = BigInt(CODE);
  m.hart.request();
  expect(m.hart.run(1)).toBe(HART_EXIT_REQUEST);
  expect(m.hart.getX(A0)).toBe(0n);
  expect(m.hart.run(1)).toBe(HART_EXIT_BUDGET);
  expect(m.hart.getX(A0)).toBe(1n);
});
