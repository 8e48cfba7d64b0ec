import { beforeEach, describe, expect, it } from 'vitest';
import { CSR, MODE_SUPERVISOR, PTE_A, PTE_D, PTE_R, PTE_V, PTE_W, PTE_X } from '../../src/riscv/index.js';
import { addi, ld, sd } from './assemble.js';
import { CODE, RAM_BASE, TestHart } from './testhart.js';

/** Instructions and accesses across two pages of 4 KiB under Sv39, which lie apart in memory, or of which one is missing. */

const [ROOT, MIDDLE, LEAF] = [RAM_BASE + 0x20000, RAM_BASE + 0x21000, RAM_BASE + 0x22000];
/** Virtual pages 0 and 1 of the first gigabyte, in this order in memory: the second before the first. */
const FIRST = RAM_BASE + 0x42000;
const SECOND = RAM_BASE + 0x31000;
const ALL = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;
const machine = new TestHart();

function setPte(table: number, index: number, gpa: number, flags: number): void {
  machine.view.setBigUint64(table - RAM_BASE + 8 * index, ((BigInt(gpa) >> 12n) << 10n) | BigInt(flags), true);
}

function map(first: number, second: number): void {
  setPte(LEAF, 0, FIRST, first);
  setPte(LEAF, 1, SECOND, second);
  machine.setCsr(CSR.satp, (8n << 60n) | BigInt(ROOT >>> 12));
  machine.hart.tlbFlushAll();
}

beforeEach(() => {
  machine.hart.setMode(MODE_SUPERVISOR);
  machine.setCsr(CSR.satp, 0n);
  setPte(ROOT, 0, MIDDLE, PTE_V);
  setPte(ROOT, 2, RAM_BASE, ALL);
  setPte(MIDDLE, 0, LEAF, PTE_V);
  machine.x.fill(0n);
});

/** Writes 4 bytes half to the end of FIRST, half to the beginning of SECOND. */
function putAcross(word: number): void {
  machine.put(FIRST + 4092, (word << 16) | 0x0001);
  machine.put(SECOND, (word >>> 16) | 0x00010000);
}

describe('an instruction across two pages', () => {
  it('is put together from both', () => {
    map(ALL, ALL);
    for (const n of [5, 6, 7]) {
      putAcross(addi(10, 10, n));
      machine.x[10] = 100n;
      machine.step(4094n);
      expect([machine.x[10], machine.hart.pc]).toEqual([BigInt(100 + n), 4098n]);
    }
  });

  it('faults for its second half with the second page in stval, and its own address in sepc', () => {
    putAcross(addi(10, 10, 1));
    map(ALL, 0);
    expect(machine.step(4094n).trap).toEqual({ cause: 12, tval: 4096n, sepc: 4094n });
    map(ALL, ALL & ~PTE_X);
    expect(machine.step(4094n).trap).toEqual({ cause: 12, tval: 4096n, sepc: 4094n });
    map(0, ALL);
    expect(machine.step(4094n).trap).toEqual({ cause: 12, tval: 4094n, sepc: 4094n });
    // Once both are there it runs.
    map(ALL, ALL);
    expect(machine.step(4094n).trap).toBeUndefined();
  });

  it('of two bytes needs only the first', () => {
    machine.put(FIRST + 4092, (0x0505 << 16) | 1);
    map(ALL, 0);
    expect(machine.step(4094n).trap).toBeUndefined();
    expect([machine.x[10], machine.hart.pc]).toEqual([1n, 4096n]);
  });

  it('in memory that the instruction before it stores to is the new one', () => {
    map(ALL, ALL);
    putAcross(addi(10, 0, 1));
    machine.step(4094n);
    machine.put(CODE, sd(12, 0, 11));
    machine.x[11] = 4090n;
    machine.x[12] = (BigInt(addi(10, 0, 2)) << 32n) | 0x00010001n;
    machine.step(BigInt(CODE));
    machine.step(4094n);
    expect(machine.x[10]).toBe(2n);
  });
});

describe('an access across two pages', () => {
  const VALUE = 0x1122334455667788n;

  it('joins them', () => {
    map(ALL, ALL);
    machine.x[11] = 4091n;
    machine.x[12] = VALUE;
    machine.put(CODE, sd(12, 0, 11));
    expect(machine.step(BigInt(CODE)).trap).toBeUndefined();
    machine.put(CODE, ld(13, 0, 11));
    machine.step(BigInt(CODE));
    expect(machine.x[13]).toBe(VALUE);
    expect(machine.view.getUint8(FIRST - RAM_BASE + 4095)).toBe(0x44);
    expect(machine.view.getUint8(SECOND - RAM_BASE)).toBe(0x33);
  });

  it('N26: stores nothing where one page is missing or read-only, and faults at the first byte that is', () => {
    machine.put(CODE, sd(12, 0, 11));
    machine.x[11] = 4091n;
    machine.x[12] = VALUE;
    for (const [first, second, tval] of [
      [ALL, 0, 4096n],
      [ALL, ALL & ~PTE_W, 4096n],
      [ALL & ~PTE_W, ALL, 4091n],
      [0, ALL, 4091n],
    ] as const) {
      map(first, second);
      const before = machine.ram.slice(SECOND - RAM_BASE, FIRST - RAM_BASE + 4096);
      expect(machine.step(BigInt(CODE)).trap).toEqual({ cause: 15, tval, sepc: BigInt(CODE) });
      expect(Buffer.compare(machine.ram.slice(SECOND - RAM_BASE, FIRST - RAM_BASE + 4096), before)).toBe(0);
    }
  });

  it('loads nothing where one page is missing', () => {
    machine.put(CODE, ld(13, 0, 11));
    machine.x[11] = 4095n;
    machine.x[13] = 7n;
    map(ALL, 0);
    expect(machine.step(BigInt(CODE)).trap).toEqual({ cause: 13, tval: 4096n, sepc: BigInt(CODE) });
    expect(machine.x[13]).toBe(7n);
  });

  it('sets the dirty bits of both', () => {
    map(ALL & ~(PTE_A | PTE_D), ALL & ~(PTE_A | PTE_D));
    machine.put(CODE, sd(12, 0, 11));
    machine.x[11] = 4095n;
    expect(machine.step(BigInt(CODE)).trap).toBeUndefined();
    for (const n of [0, 1])
      expect(machine.view.getUint8(LEAF - RAM_BASE + 8 * n) & (PTE_A | PTE_D)).toBe(PTE_A | PTE_D);
  });
});
