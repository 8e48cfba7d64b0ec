import { expect, test } from 'vitest';
import { createMemory } from '../../src/base/index.js';
import {
  type Access,
  FlatMmu,
  HART_EXIT_BUDGET,
  type Hart,
  type MmuResult,
  RiscvEngine,
} from '../../src/riscv/index.js';
import { bumpAllocator } from './arena.js';

/**
 * Every instruction makes progress, and no guest keeps the thread: a hart that tries the same thing again and again is stopped
 * by its MMU here, since a loop inside `run` would not come back.
 */

const RAM = 0x80000000;
const RAM_BYTES = 4 * 2 ** 20;
const ARENA = 1 << 20;
const A0 = 10;
const A5 = 15;
const LD_A0_A5 = 0x0007b503;
const STVEC = 0x105;

class CountingMmu extends FlatMmu {
  private left = 1000;

  override translate(hart: Hart, va: number, access: Access): MmuResult {
    if (this.left-- === 0) throw new Error('the hart goes round without progress');
    return super.translate(hart, va, access);
  }
}

function board(): { hart: Hart; ram: DataView } {
  const memory = createMemory(ARENA + RAM_BYTES);
  const engine = new RiscvEngine({ memory, alloc: bumpAllocator(ARENA), free: () => {}, nrDecodedPages: 16 });
  const mmu = new CountingMmu(engine.i32, RAM, RAM_BYTES, ARENA);
  const hart = engine.createHart({ hartId: 0, mmu, now: () => 0 });
  return { hart, ram: new DataView(memory.buffer, ARENA, RAM_BYTES) };
}

/** A load across two pages, from `offset` in RAM. */
function loadAcross(offset: number): bigint {
  const { hart, ram } = board();
  ram.setUint32(0xffe, LD_A0_A5, true);
  ram.setBigUint64(offset, 0x1122334455667788n, true);
  hart.pc = BigInt(RAM + 0xffe);
  hart.setX(A5, BigInt(RAM + offset));
  expect(hart.run(1)).toBe(HART_EXIT_BUDGET);
  expect(hart.pc).toBe(BigInt(RAM + 0x1002));
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
  const { hart } = board();
  hart.pc = 0x1000n;
  expect(hart.run(100)).toBe(HART_EXIT_BUDGET);
  expect(hart.instret).toBe(0);
  expect(hart.nrTraps).toBe(100);
});

test('a trap handler that traps uses up the budget and retires nothing', () => {
  const { hart } = board();
  // RAM is zeros, which are illegal instructions.
  hart.csr.write(STVEC, RAM | 0, 0);
  hart.pc = BigInt(RAM + 4);
  expect(hart.run(100)).toBe(HART_EXIT_BUDGET);
  expect(hart.instret).toBe(0);
  expect(hart.pc).toBe(BigInt(RAM));
});
