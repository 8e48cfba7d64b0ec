import { expect, test } from 'vitest';
import { Words } from '../../src/base/index.js';
import { ShadowPages } from '../../src/kvm/shadow.js';
import { SPTE_R, SPTE_W } from '../../src/kvm/spte.js';
import type { Host } from '../../src/mm/index.js';
import { newHost } from './testvm.js';

/** Several `ShadowPages` over the same words, as the threads of a VM have them. */

const NR_GFNS = 64;
const SATP = (8n << 60n) | (7n << 44n) | 1n;
const PFN = 0x80123;
const PTE_D = 128;

/** Memslots of one slot, as one thread sees it. */
function view(memory: { buffer: SharedArrayBuffer }, at: number) {
  const direct = new Words(memory, at, NR_GFNS);
  const rmap = new Words(memory, at + NR_GFNS * 4, NR_GFNS);
  const slot = { baseGfn: 0, direct, rmap };
  return { ...slot, find: (gfn: number) => (gfn < NR_GFNS ? slot : undefined) };
}

/** As after a walk through tables 1, 2, 3. */
function enter(shadow: ShadowPages, root: number, vpn: number, gfn: number, flags: number): number {
  return shadow.install(root, vpn, { gpa: gfn * 4096, flags, level: 0, tables: [3, 2, 1] }, shadow.generation);
}

function twoThreads(host: Host, nrPages: number) {
  const at = host.arenaAlloc(NR_GFNS * 8, 8);
  const mine = view(host.memory, at);
  for (let i = 0; i < NR_GFNS; i++) {
    mine.direct.writeOnce(i, ((PFN + i) << 12) | 3);
    mine.rmap.writeOnce(i, 0);
  }
  const zaps = { a: [] as number[], b: [] as number[] };
  const a = ShadowPages.create(host, mine, nrPages, (vpn) => zaps.a.push(vpn));
  const theirs = view({ buffer: host.memory.buffer as SharedArrayBuffer }, at);
  const b = ShadowPages.attach(host.memory, structuredClone(a.descriptor), theirs, (vpn) => zaps.b.push(vpn));
  return { a, b, mine, theirs, zaps };
}

test('what one thread enters, the other finds, takes away, and tells its own TLBs of', () => {
  const host = newHost(64);
  const { a, b, mine, zaps } = twoThreads(host, 16);
  const root = a.getRoot(SATP, 0);
  expect(enter(a, root, 0x12345, 9, SPTE_R | SPTE_W | PTE_D) >>> 12).toBe(PFN + 9);
  expect(b.getRoot(SATP, 0)).toBe(root);
  expect(b.spte(b.lookup(root, 0x12345)) >>> 12).toBe(PFN + 9);
  b.zapGfn(mine, 9);
  expect(a.spte(a.lookup(root, 0x12345))).toBe(0);
  expect(zaps).toEqual({ a: [], b: [0x12345] });
  a.free(host);
});

test('a root whose pages the other thread took is dead, and stays so when its page is used again', () => {
  const host = newHost(64);
  const { a, b } = twoThreads(host, 3);
  const root = a.getRoot(SATP, 0);
  enter(a, root, 5, 1, SPTE_R);
  let other = -1;
  for (let k = 1n; k <= 3n; k++) other = b.getRoot(SATP + k, 1);
  expect([a.isLive(root), a.isLive(other)]).toEqual([false, true]);
  const again = a.getRoot(SATP, 0);
  expect(again).not.toBe(root);
  expect([a.isLive(root), b.isLive(again)]).toEqual([false, true]);
  a.free(host);
});

test('N3: an entry whose direct entry went between the walk and the lock is not installed', () => {
  const host = newHost(64);
  const { a, mine } = twoThreads(host, 16);
  const root = a.getRoot(SATP, 0);
  mine.direct.writeOnce(9, 0);
  expect(enter(a, root, 5, 9, SPTE_R)).toBe(0);
  expect(enter(a, root, 5, NR_GFNS, SPTE_R)).toBe(0);
  mine.direct.writeOnce(9, (PFN << 12) | 1);
  expect(enter(a, root, 5, 9, SPTE_R | SPTE_W | PTE_D) & SPTE_W).toBe(0);
  a.free(host);
});
