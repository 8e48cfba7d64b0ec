import { expect, test } from 'vitest';
import type { Vcpu } from '../../src/kvm/index.js';
import { PROT_NONE } from '../../src/mm/index.js';
import { CSR } from '../../src/riscv/index.js';
import { PagedVm, RAM_PAGES } from './pagedvm.js';
import { FIRST_DATA_PAGE as DATA, PAGE } from './testvm.js';

/** A bracket over more pages than TLBs are told one by one. */

const range = (from: number, end: number) => Array.from({ length: end - from }, (_, i) => from + i);
const [FEW, MANY] = [range(20, 30), range(DATA, RAM_PAGES)];

async function touched(pages: readonly number[]): Promise<PagedVm> {
  const w = await PagedVm.create();
  for (const page of pages) await w.load(page);
  return w;
}

/** Pages of data in the TLB. */
function inTlb({ t }: PagedVm): number[] {
  const pages = new Set<number>();
  t.vcpu.hart.forEachTlbEntry((va) => pages.add((va - t.gpa(0)) / PAGE));
  return [...pages].filter((page) => page >= DATA && page < RAM_PAGES).sort((a, b) => a - b);
}

function takeAway({ t }: PagedVm, pages: readonly number[]): void {
  t.mm.mprotect(t.at(pages[0]!), pages.length * PAGE, PROT_NONE);
}

function end({ t }: PagedVm): void {
  t.check();
  t.destroy();
}

test.each([
  ['few', FEW],
  ['many', MANY],
])('N4: a TLB forgets all of %s pages that go at once', async (_how, pages) => {
  const w = await touched(MANY);
  expect(inTlb(w)).toEqual(MANY);
  takeAway(w, pages);
  expect(inTlb(w).filter((page) => pages.includes(page))).toEqual([]);
  // Few are told one by one: others stay.
  expect(inTlb(w).length).toBe(pages === FEW ? MANY.length - FEW.length : 0);
  end(w);
});

test('N4: a vCPU that flushes and refills while pages go is asked again behind the last one', async () => {
  const w = await touched(MANY);
  const left: number[] = [];
  const note = () => void left.push(w.entered.length);
  const other = { flushPage: note, flushBarePage: note, dropCode: () => {}, awaitFlush: () => {} };
  w.t.vm.vcpus.push(other as unknown as Vcpu);
  takeAway(w, MANY);
  w.t.vm.vcpus.pop();
  expect(left.length).toBeLessThan(2 * MANY.length);
  expect(left.at(-1)).toBe(0);
  end(w);
});

test('N4: what a hart without paging has used goes with many pages and with few', async () => {
  for (const pages of [FEW, MANY]) {
    const w = await PagedVm.create();
    w.t.vcpu.hart.csr.write(CSR.satp, 0, 0);
    for (const page of pages) await w.load(page);
    expect(inTlb(w)).toEqual(pages);
    takeAway(w, pages);
    expect(inTlb(w)).toEqual([]);
    end(w);
  }
});
