import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Words } from '../../src/base/index.js';
import { ShadowPages } from '../../src/kvm/shadow.js';
import { POOL_GENERATION } from '../../src/kvm/shadowpool.js';
import { SPTE_A, SPTE_G, SPTE_R, SPTE_U, SPTE_V, SPTE_W, SPTE_X } from '../../src/kvm/spte.js';
import { Host } from '../../src/mm/index.js';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_WRITE,
  type Access,
  CSR,
  type HartMmu,
  MMU_OK,
  MMU_WAIT,
  MODE_SUPERVISOR,
  MODE_USER,
  permits,
  RIGHT_X,
  RiscvEngine,
} from '../../src/riscv/index.js';
import { REFILL_ENTRIES, TLB_ENTRIES } from '../../src/riscv/layout.js';
import { ld, sd } from '../isa/assemble.js';
import { A0, A1, code } from './guestcode.js';

/**
 * The TLB miss that is answered in WebAssembly (riscv/refill.ts) beside its twin in TypeScript, `ShadowPages.peek`: for any word, mode and right both say the same, and
 * the hart's MMU is asked for nothing else.
 */

const PAGE = 4096;
const NR_GFNS = 64;
const SATP = (8n << 60n) | 1n;
const SUM = 1 << 18;
const PTE_D = 128;
const CODE_VA = 0x10000;
const RIGHTS = [SPTE_V, SPTE_R, SPTE_W, SPTE_X, SPTE_U, SPTE_A];

class World {
  readonly host = new Host({ frames: 64, arenaBytes: 2 ** 20 });
  readonly shadow: ShadowPages;
  readonly engine: RiscvEngine;
  readonly hart;
  readonly asked: Access[] = [];
  readonly frame: number;
  readonly root: number;
  private readonly code: number;

  constructor(vpn: number) {
    const { host } = this;
    const page = () => host.arenaAlloc(PAGE, PAGE) >>> 12;
    [this.frame, this.code] = [page(), page()];
    const direct = new Words(host.memory, host.arenaAlloc(NR_GFNS * 4, 8), NR_GFNS);
    const rmap = new Words(host.memory, host.arenaAlloc(NR_GFNS * 4, 8), NR_GFNS);
    for (let i = 0; i < NR_GFNS; i++) {
      direct.writeOnce(i, (this.frame << 12) | 3);
      rmap.writeOnce(i, 0);
    }
    const slot = { baseGfn: 0, direct, rmap };
    const slots = { find: (gfn: number) => (gfn < NR_GFNS ? slot : undefined) };
    this.shadow = ShadowPages.create(host, slots, 8, () => {});
    this.engine = new RiscvEngine({
      ...{ memory: host.memory, nrDecodedPages: 4, free: () => {} },
      alloc: (lenBytes, align) => host.arenaAlloc(lenBytes, align),
    });
    const mmu: HartMmu = {
      translate: (hart, va, access) => {
        if (access === ACCESS_EXEC) {
          // Global, so that what is not is the data alone.
          hart.tlbFill(va, this.code, RIGHT_X, access, true);
          return MMU_OK;
        }
        this.asked.push(access);
        return MMU_WAIT;
      },
      sfenceVma: () => {},
      satpWritten: () => {},
    };
    this.hart = this.engine.createHart({ hartId: 0, mmu, now: () => 0 });
    this.hart.csr.write(CSR.satp, 1, 8 << 28);
    this.root = this.shadow.getRoot(SATP, 0);
    this.install(vpn);
    host.u8.set(code(ld(A1, 0, A0), sd(A1, 0, A0)), this.code * PAGE);
    host.u8[this.frame * PAGE] = 77;
  }

  /** As after a walk of the guest's tables, where each region has one of its own. */
  install(vpn: number): void {
    const tables = [3 + (vpn >>> 9), 2, 1];
    const walk = { gpa: 9 * PAGE, flags: SPTE_R | SPTE_W | SPTE_U | PTE_D, level: 0, tables };
    this.shadow.install(this.root, vpn, walk, this.shadow.generation);
  }

  /** What the owner of the hart does when it has looked the region up; an address space in `root`. */
  note(vpn: number, level = 0): void {
    const { shadow, hart, root } = this;
    const { pool } = shadow;
    hart.refill.setGeneration(pool.generationAddr);
    hart.refill.setRoot(pool.idOf(root), pool.idAddrOf(pool.pageOf(root)));
    shadow.lookup(root, vpn);
    hart.refill.put(vpn >>> 9, shadow.leafGeneration, pool.addrOf(shadow.leaf), level);
  }

  get index(): number {
    return this.shadow.installed;
  }

  /** Loads or stores at `va` by the hart, whose TLB is empty; whether its MMU was not asked. */
  access(va: bigint, access: Access): boolean {
    this.hart.tlbFlushAll();
    return this.accessAgain(va, access);
  }

  /** The same, with what the TLB has. */
  accessAgain(va: bigint, access: Access): boolean {
    const { hart, asked } = this;
    asked.length = 0;
    hart.pc = BigInt(CODE_VA + (access === ACCESS_WRITE ? 4 : 0));
    hart.setX(A0, va);
    hart.setX(A1, 5n);
    hart.run(1);
    return asked.length === 0 && hart.pc === BigInt(CODE_VA + (access === ACCESS_WRITE ? 8 : 4));
  }
}

function vaOf(vpn: number): bigint {
  return BigInt((vpn << 5) >> 5) * 4096n;
}

const caseOf = fc.record({
  vpn: fc.constantFrom(0x12345, 0x7fffe00, 0x4000123, 511),
  rights: fc.subarray(RIGHTS),
  user: fc.boolean(),
  sum: fc.boolean(),
  access: fc.constantFrom<Access>(ACCESS_READ, ACCESS_WRITE),
  spoiled: fc.constantFrom('no', 'no', 'no', 'generation', 'root', 'other region', 'not canonical', 'other space'),
});

test('N3 N14: the hart refills its TLB where its twin would, and nowhere else', () => {
  let nrFilled = 0;
  fc.assert(
    fc.property(caseOf, ({ vpn, rights, user, sum, access, spoiled }) => {
      const w = new World(vpn);
      const { shadow, hart } = w;
      w.note(vpn);
      hart.setMode(user ? MODE_USER : MODE_SUPERVISOR);
      hart.csr.write(CSR.sstatus, sum ? SUM : 0, 0);
      const word = (w.frame << 12) | rights.reduce((a, b) => a | b, 0);
      const put = () => shadow.pool.entries.writeOnce(w.index, word);
      let asked: number = vpn;
      if (spoiled === 'generation') shadow.pool.nextGeneration();
      if (spoiled === 'root') shadow.tree.evict(shadow.pool.pageOf(w.root));
      if (spoiled === 'other region') asked = vpn ^ (1 << 17);
      put();
      const space = spoiled === 'other space' ? shadow.getRoot(SATP + 5n, 0) : w.root;
      if (space !== w.root)
        hart.refill.setRoot(shadow.pool.idOf(space), shadow.pool.idAddrOf(shadow.pool.pageOf(space)));
      const spte = shadow.peek(space, asked);
      const expected = spoiled !== 'not canonical' && spte !== 0 && permits(spte, access, user, sum, false);
      put();
      const va = vaOf(asked) ^ (spoiled === 'not canonical' ? 1n << 40n : 0n);
      const filled = w.access(va, access);
      expect(filled).toBe(expected);
      expect(shadow.pool.entries.readOnce(w.index)).toBe(filled ? word | SPTE_A : word);
      if (!filled) return;
      nrFilled++;
      if (access === ACCESS_READ) expect(hart.getX(A1)).toBe(77n);
      else expect(w.host.u8[w.frame * PAGE]).toBe(5);
      const entries: boolean[] = [];
      hart.forEachTlbEntry((_va, hostAddress, write) => {
        expect(hostAddress).toBe(w.frame * PAGE);
        entries.push(write);
      });
      const forStores = access === ACCESS_WRITE ? [true] : [];
      expect(entries.sort()).toEqual([...((word & SPTE_R) !== 0 ? [false] : []), ...forStores]);
    }),
    { numRuns: 300 },
  );
  expect(nrFilled).toBeGreaterThan(10);
});

const FULL = SPTE_V | SPTE_R | SPTE_W | SPTE_A;

/** As the MMU has left it for page 5, whose entry lets it be read and written. */
function fullWorld(rights = 0): World {
  const w = new World(5);
  w.note(5);
  w.shadow.pool.entries.writeOnce(w.index, (w.frame << 12) | FULL | rights);
  return w;
}

/** Far beyond what any access takes. */
const HANGS_MS = 20_000;
const WATCH = `
const { workerData: { memory, address } } = require('node:worker_threads');
const words = new Int32Array(memory.buffer);
setTimeout(() => Atomics.add(words, address / 4, 1), ${HANGS_MS});`;

/**
 * Runs accesses, each of which must come to an end: a hart that refills and misses for ever polls nothing, and only a generation that moves gets it out.
 * Throws where it had to.
 */
async function watched(w: World, accesses: () => void): Promise<void> {
  const { pool } = w.shadow;
  const workerData = { memory: w.host.memory, address: pool.generationAddr };
  const watch = new Worker(WATCH, { eval: true, workerData });
  await once(watch, 'online');
  const { generation } = pool;
  accesses();
  await watch.terminate();
  if (pool.generation !== generation) throw new Error('an access was refilled and missed again for ever');
}

test('N3: a page that has decoded code is refilled for reading alone', async () => {
  const w = fullWorld();
  w.engine.recordsOf(w.frame);
  await watched(w, () => {
    expect([w.access(vaOf(5), ACCESS_READ), w.access(vaOf(5), ACCESS_WRITE)]).toEqual([true, false]);
    w.access(vaOf(5), ACCESS_READ);
    const writable: boolean[] = [];
    w.hart.forEachTlbEntry((_va, _host, write) => writable.push(write));
    expect(writable).toEqual([false]);
    w.engine.records.drop(w.frame);
    expect(w.access(vaOf(5), ACCESS_WRITE)).toBe(true);
  });
});

test.each([
  ['is not global goes with its address space', 0, []],
  ['is global stays', SPTE_G, [false, true]],
] as const)('what the supervisor has refilled and %s', (_what, global, left) => {
  const w = fullWorld(global);
  expect(w.access(vaOf(5), ACCESS_WRITE)).toBe(true);
  w.hart.csr.write(CSR.satp, 2, 8 << 28);
  const entries: boolean[] = [];
  w.hart.forEachTlbEntry((_va, _host, write) => entries.push(write));
  expect(entries.sort()).toEqual(left);
});

test('N4: what was refilled goes with a flush, for reading and for writing', () => {
  const w = fullWorld();
  expect(w.access(vaOf(5), ACCESS_WRITE)).toBe(true);
  w.hart.tlbFlushAll();
  const entries: boolean[] = [];
  w.hart.forEachTlbEntry((_va, _host, write) => entries.push(write));
  expect(entries).toEqual([]);
});

test('N3: nothing is refilled of an address space that is gone, though generations began anew', () => {
  const w = fullWorld();
  const { pool, tree } = w.shadow;
  const { generation } = pool;
  const word = pool.entries.readOnce(w.index);
  tree.evict(pool.pageOf(w.root));
  pool.words.store(POOL_GENERATION, generation);
  pool.entries.writeOnce(w.index, word);
  expect(w.access(vaOf(5), ACCESS_READ)).toBe(false);
});

test('N3: an address space finds nothing of another whose regions have the same places', () => {
  const w = fullWorld();
  const { host, hart, shadow } = w;
  const other = shadow.pool.idOf(w.root) + REFILL_ENTRIES;
  const at = host.arenaAlloc(8, 8);
  new Words(host.memory, at, 1).writeOnce(0, other);
  hart.refill.setRoot(other, at);
  expect(w.access(vaOf(5), ACCESS_READ)).toBe(false);
  hart.refill.setRoot(shadow.pool.idOf(w.root), shadow.pool.idAddrOf(shadow.pool.pageOf(w.root)));
  expect(w.access(vaOf(5), ACCESS_READ)).toBe(true);
});

test('pages of superpages are refilled inside the hull that was noted', () => {
  const w = new World(600);
  w.note(600, 1);
  w.shadow.pool.entries.writeOnce(w.index, (w.frame << 12) | FULL);
  const tries = [
    [1, 0],
    [512, 599],
    [601, 1023],
    [512, 1023],
  ] as const;
  const answers = tries.map(([first, last]) => {
    w.hart.refill.setSuperpages(first, last);
    return w.access(vaOf(600), ACCESS_READ);
  });
  expect(answers).toEqual([false, false, false, true]);
});

test('an access across pages, a right that is known to lack and no address space go to the MMU', () => {
  const w = fullWorld();
  expect(w.access(vaOf(5) + 4092n, ACCESS_READ)).toBe(false);
  w.hart.refill.setRoot(0, 0);
  expect(w.access(vaOf(5), ACCESS_READ)).toBe(false);
});

test('N3: without an address space nothing is refilled, whatever page 0 holds', () => {
  const w = fullWorld();
  const { host, hart } = w;
  new Words(host.memory, 0, 8).writeOnce(5, (w.frame << 12) | FULL);
  hart.refill.setGeneration(host.arenaAlloc(8, 8));
  hart.refill.setRoot(0, 0);
  expect(w.access(vaOf(5), ACCESS_READ)).toBe(false);
});

/** The second place of what is in the last first place of a table that is empty is the first of all. */
test.each([
  ['wants the same first place', 5, 5 + TLB_ENTRIES],
  ['comes into the last place, which is empty', 0, TLB_ENTRIES - 1],
])('an entry stays in the TLB when another %s', (_what, first, then) => {
  const w = new World(first);
  const word = (w.frame << 12) | FULL;
  for (const vpn of [first, then]) {
    w.install(vpn);
    w.note(vpn);
    w.shadow.pool.entries.writeOnce(w.index, word);
  }
  w.hart.tlbFlushAll();
  expect([first, then].map((vpn) => w.accessAgain(vaOf(vpn), ACCESS_WRITE))).toEqual([true, true]);
  w.hart.refill.setRoot(0, 0);
  for (const access of [ACCESS_READ, ACCESS_WRITE] as const)
    expect([first, then].map((vpn) => w.accessAgain(vaOf(vpn), access))).toEqual([true, true]);
});
