import { describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  CSR,
  type Hart,
  IRQ_S_EXT,
  IRQ_S_SOFT,
  IRQ_S_TIMER,
  MODE_SUPERVISOR,
  MODE_USER,
  RIGHT_R,
} from '../../src/riscv/index.js';
import * as L from '../../src/riscv/layout.js';
import { csrrc, csrrs, csrrsi, csrrw, SRET } from './assemble.js';
import { integer, Random } from './random.js';
import { CODE, DATA, type Step, TestHart, VECTOR } from './testhart.js';

/**
 * What generated code does with CSRs (csrhelpers.ts) beside what TypeScript does with them (csrfile.ts, trap.ts), which traps.test.ts
 * holds against the manual: two harts in the same random state, of which one is kept from the generated code.
 */

const NR_STATES = 400;
const fast = new TestHart();
const slow = new TestHart();
const CSRS = [CSR.sstatus, CSR.sscratch, CSR.sepc, CSR.scause, CSR.stval, CSR.sie, CSR.stvec];
const INTERRUPTS = [IRQ_S_SOFT, IRQ_S_TIMER, IRQ_S_EXT];

interface State {
  readonly user: boolean;
  readonly csrs: readonly bigint[];
  readonly pending: number;
  readonly x: readonly bigint[];
}

function randomState(r: Random): State {
  const csrs = CSRS.map((csr) => (csr === CSR.stvec ? BigInt(VECTOR) : integer(r)));
  const x = Array.from({ length: 32 }, (_, n) => (n === 0 ? 0n : integer(r)));
  return { user: r.oneIn(8), csrs, pending: r.oneIn(2) ? 0 : r.below(8), x };
}

function prepare(machine: TestHart, { user, csrs, pending, x }: State): void {
  const { hart } = machine;
  for (const [i, csr] of CSRS.entries()) machine.setCsr(csr, csrs[i]!);
  // So that an interrupt is let in by the instruction, if at all.
  machine.setCsr(CSR.sstatus, machine.csr(CSR.sstatus) & ~2n);
  hart.setMode(MODE_SUPERVISOR);
  hart.tlb.flushAll();
  hart.tlbFill(DATA, machine.hostPage(DATA), RIGHT_R, ACCESS_READ, true);
  if (user) hart.setMode(MODE_USER);
  for (const [i, cause] of INTERRUPTS.entries()) hart.setInterruptPending(cause, !user && ((pending >> i) & 1) === 1);
  machine.x.set(x);
  machine.engine.i64[(hart.base + L.RESERVED_VA) >>> 3] = 0x1234n;
}

/** All that the instruction may change. */
function outcome(machine: TestHart, step: Step): unknown {
  const { hart } = machine;
  const word = (offset: number) => machine.engine.i32[(hart.base + offset) >>> 2]!;
  const { mode, pc } = hart;
  return {
    ...{ step, mode, pc, x: [...machine.x], csrs: CSRS.map((csr) => machine.csr(csr)) },
    contexts: [word(L.DATA_CTX), word(L.FETCH_CTX), word(L.PRIVILEGED)],
    reserved: machine.engine.i64[(hart.base + L.RESERVED_VA) >>> 3],
    flushed: hart.tlb.lookup(DATA, ACCESS_READ) < 0,
  };
}

function run(machine: TestHart, state: State, forbid: boolean): unknown {
  prepare(machine, state);
  if (forbid) machine.engine.i32[(machine.hart.base + L.PRIVILEGED) >>> 2] = 0;
  const step = machine.step(BigInt(CODE));
  if (forbid) machine.hart.setMode(machine.hart.mode);
  return outcome(machine, step);
}

function compare(name: string, words: (r: Random) => number): void {
  it(name, () => {
    const r = new Random(name.length);
    for (let n = 0; n < NR_STATES; n++) {
      const word = words(r);
      for (const machine of [fast, slow]) machine.put(CODE, word);
      const state = randomState(r);
      expect(run(fast, state, false), `${name} ${(word >>> 0).toString(16)}`).toEqual(run(slow, state, true));
    }
  });
}

/** How often an instruction goes to TypeScript once it is decoded. */
function slowCalls(word: number, state: State): number {
  fast.put(CODE, word);
  run(fast, state, false);
  const { hart } = fast as { hart: Hart };
  const { onSlow } = hart;
  let calls = 0;
  hart.onSlow = (record: number) => {
    calls++;
    return onSlow.call(hart, record);
  };
  try {
    run(fast, state, false);
  } finally {
    hart.onSlow = onSlow;
  }
  return calls;
}

describe('in generated code as in TypeScript', () => {
  const rd = (r: Random) => r.below(32);
  compare('csrrw', (r) => csrrw(rd(r), r.pick(CSRS), rd(r)));
  compare('csrrs', (r) => csrrs(rd(r), r.pick(CSRS), r.oneIn(3) ? 0 : rd(r)));
  compare('csrrc', (r) => csrrc(rd(r), r.pick(CSRS), r.oneIn(3) ? 0 : rd(r)));
  compare('csrrwi, csrrsi, csrrci', (r) => csrrsi(rd(r), r.pick(CSRS), rd(r)) ^ (r.pick([0, 1, 3]) << 12));
  compare('csrrs sstatus', (r) => csrrs(rd(r), CSR.sstatus, rd(r)));
  compare('sret', () => SRET);
});

describe('generated code', () => {
  const state: State = { user: false, csrs: CSRS.map(() => 0n), pending: 0, x: Array.from({ length: 32 }, () => 0n) };
  it('does by itself what a kernel does at each trap', () => {
    const words = [csrrw(5, CSR.sscratch, 5), csrrs(5, CSR.sepc, 0), csrrw(0, CSR.sepc, 5), csrrs(5, CSR.scause, 0)];
    for (const word of [...words, csrrs(5, CSR.stval, 0), csrrsi(0, CSR.sstatus, 2), csrrc(5, CSR.sstatus, 6), SRET])
      expect(slowCalls(word, state), (word >>> 0).toString(16)).toBe(0);
  });

  it('leaves to TypeScript what lets an interrupt in, and what changes MXR', () => {
    const enabled = { ...state, pending: 2, csrs: CSRS.map((csr) => (csr === CSR.sie ? 32n : 0n)) };
    expect(slowCalls(csrrsi(0, CSR.sstatus, 2), enabled)).toBe(1);
    expect(slowCalls(SRET, enabled)).toBe(1);
    const mxr = { ...state, x: state.x.map((_, n) => (n === 6 ? 1n << 19n : 0n)) };
    expect(slowCalls(csrrs(0, CSR.sstatus, 6), mxr)).toBe(1);
  });
});
