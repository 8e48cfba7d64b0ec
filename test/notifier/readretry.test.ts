import { expect, test } from 'vitest';
import { FAULT_FLAG_WRITE, type Mm, mmuNotifierRegister, VA_SIZE, type Vma } from '../../src/mm/index.js';
import {
  PteNotifier,
  pteNotifierCall,
  pteNotifierReadBegin,
  pteNotifierReadRetry,
  pteNotifierRegister,
  pteNotifierUnregister,
} from '../../src/notifier/index.js';
import { ANON, PAGE, recorder, setUp, touch } from './recorder.js';

/** read-begin and read-retry: an external fault beside a bracket. */

/** A driver of one page: what its fault installed, and what a bracket left of it. */
class OnePage {
  entry = 0;
  readonly pn = new PteNotifier({ clear: () => void (this.entry = 0) });
  private readonly mm: Mm;
  private readonly va: number;

  constructor(vma: Vma) {
    this.mm = vma.mm;
    this.va = vma.start;
    pteNotifierRegister(this.pn, vma);
  }

  /** One attempt, with `between` run after the look-up; whether it installed. */
  tryFault(between: () => void = () => {}): boolean {
    const seq = pteNotifierReadBegin(this.pn);
    const pfn = this.mm.tryGetPage(this.va, FAULT_FLAG_WRITE);
    between();
    const stale = pteNotifierReadRetry(this.pn, seq, this.va);
    if (!stale) this.entry = pfn;
    this.mm.putPage(pfn);
    return !stale;
  }
}

test('S2 N3: an external fault inside the bracket cannot succeed, neither after clear nor after the pte is gone', () => {
  const { mm, va, vma } = setUp();
  const driver = new OnePage(vma);
  touch(mm, va, 0, 1);
  const installed: boolean[] = [];
  expect(driver.tryFault()).toBe(true);
  pteNotifierCall(vma, 'clear', va, () => installed.push(driver.tryFault()));
  expect([installed, driver.entry]).toEqual([[false], 0]);
  expect(driver.tryFault()).toBe(true);
  mmuNotifierRegister(mm, va + PAGE, VA_SIZE, {
    invalidateRangeStart: () => void installed.push(driver.tryFault()),
  });
  mm.madviseDontneed(va, 16 * PAGE);
  expect([installed, driver.entry]).toEqual([[false, false], 0]);
});

test('N8: what was looked up before a bracket is not installed after it', () => {
  const { mm, va, vma } = setUp();
  const driver = new OnePage(vma);
  touch(mm, va, 0, 1);
  expect(driver.tryFault(() => mm.madviseDontneed(va, PAGE))).toBe(false);
  expect(driver.entry).toBe(0);
  expect(driver.tryFault()).toBe(true);
});

test('N8: a bracket elsewhere in the area holds up only those who do not say where they are', () => {
  const { va, vma } = setUp();
  const { pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  const seq = pteNotifierReadBegin(pn);
  const retries: boolean[] = [];
  pteNotifierCall(vma, 'clear', va + 4 * PAGE, () => {
    for (const at of [va + 3 * PAGE, va + 4 * PAGE, va + 5 * PAGE, undefined])
      retries.push(pteNotifierReadRetry(pn, seq, at));
  });
  expect(retries).toEqual([false, true, false, true]);
  expect([pteNotifierReadRetry(pn, seq, va), pteNotifierReadRetry(pn, seq)]).toEqual([true, true]);
  const next = pteNotifierReadBegin(pn);
  expect([pteNotifierReadRetry(pn, next, va), pteNotifierReadRetry(pn, next)]).toEqual([false, false]);
});

test('N8 N17: a fault that began under an earlier registration installs nothing under a later one, nor when there is none', () => {
  const { va, vma } = setUp();
  const { pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  const seqs = [pteNotifierReadBegin(pn)];
  pteNotifierUnregister(pn);
  expect(pteNotifierReadRetry(pn, seqs[0]!, va)).toBe(true);
  expect(() => pteNotifierReadBegin(pn)).toThrow(/EINVAL.*registered/);
  for (let k = 0; k < 3; k++) {
    pteNotifierRegister(pn, vma);
    expect(seqs.map((seq) => pteNotifierReadRetry(pn, seq, va))).not.toContain(false);
    seqs.push(pteNotifierReadBegin(pn));
    expect(pteNotifierReadRetry(pn, seqs.at(-1)!, va)).toBe(false);
    pteNotifierCall(vma, 'clear', va);
    seqs.push(pteNotifierReadBegin(pn));
    pteNotifierUnregister(pn);
  }
});

test('N19: a poisoned driver can install nothing more', () => {
  const { mm, va, vma } = setUp();
  const { pn } = recorder(va, {
    clear: () => {
      throw new Error('oops');
    },
  });
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 1);
  const seq = pteNotifierReadBegin(pn);
  mm.madviseDontneed(va + PAGE, PAGE);
  expect(pteNotifierReadRetry(pn, seq, va)).toBe(true);
  mm.madviseDontneed(va, PAGE);
  expect(pteNotifierReadRetry(pn, seq, va)).toBe(true);
  expect(() => pteNotifierReadBegin(pn)).toThrow(/EIO.*oops/);
});

test('N8: after the area is closed a fault that is under way finds out, and the next cannot begin', () => {
  const { mm, va, vma } = setUp();
  const { pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  const seq = pteNotifierReadBegin(pn);
  mm.munmap(va, 16 * PAGE);
  expect(pteNotifierReadRetry(pn, seq, va)).toBe(true);
  expect(() => pteNotifierReadBegin(pn)).toThrow(/EINVAL/);
  expect(mm.mmap(va, PAGE, 3, ANON)).toBe(va);
  expect(pteNotifierReadRetry(pn, seq, va)).toBe(true);
});
