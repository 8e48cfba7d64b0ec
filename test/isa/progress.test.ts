import { expect, test } from 'vitest';
import { type Access, CSR, HART_EXIT_BUDGET, type Hart } from '../../src/riscv/index.js';
import { ld } from './assemble.js';
import { RAM_BASE, TestHart } from './testhart.js';

/**
 * Every instruction makes progress, and no guest keeps the thread: a hart that tries the same thing again and again is stopped
 * by its MMU here, since a loop inside `run` would not come back.
 */

const A0 = 10;
const A5 = 15;

/** A hart whose traps go to address `vector`. */
function machine(vector: number): TestHart {
  const m = new TestHart();
  const translate = m.mmu.translate.bind(m.mmu);
  let left = 1000;
  m.mmu.translate = (hart: Hart, va: number, access: Access) => {
    if (left-- === 0) throw new Error('the hart goes round without progress');
    return translate(hart, va, access);
  };
  m.setCsr(CSR.stvec, BigInt(vector));
  return m;
}

/** A load across two pages, from `offset` in RAM. */
function loadAcross(offset: number): bigint {
  const { hart, view, x } = machine(0);
  view.setUint32(0xffe, ld(A0, 0, A5), true);
  view.setBigUint64(offset, 0x1122334455667788n, true);
  hart.pc = BigInt(RAM_BASE + 0xffe);
  x[A5] = BigInt(RAM_BASE + offset);
  expect(hart.run(1)).toBe(HART_EXIT_BUDGET);
  expect(hart.pc).toBe(BigInt(RAM_BASE + 0x1002));
  expect(hart.instret).toBe(1);
  return hart.getX(A0);
}

test('N26: an instruction across two pages loads from a page that shares its TLB entry', () => {
  // 256 entries of 4 KiB: addresses 1 MiB apart meet in one.
  expect(loadAcross(2 ** 20 + 0x880)).toBe(0x1122334455667788n);
});

test('N26: an instruction across two pages loads from its own pages', () => {
  expect(loadAcross(0x880)).toBe(0x1122334455667788n);
  expect(loadAcross(0x1880)).toBe(0x1122334455667788n);
});

test('a trap handler that cannot be fetched uses up the budget and retires nothing', () => {
  const { hart } = machine(0);
  hart.pc = 0x1000n;
  expect(hart.run(100)).toBe(HART_EXIT_BUDGET);
  expect(hart.instret).toBe(0);
  expect(hart.nrTraps).toBe(100);
});

test('a trap handler that traps uses up the budget and retires nothing', () => {
  // RAM is zeros, which are illegal instructions.
  const { hart } = machine(RAM_BASE);
  hart.pc = BigInt(RAM_BASE + 4);
  expect(hart.run(100)).toBe(HART_EXIT_BUDGET);
  expect(hart.instret).toBe(0);
  expect(hart.pc).toBe(BigInt(RAM_BASE));
});
