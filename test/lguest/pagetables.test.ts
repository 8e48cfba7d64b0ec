import { describe, expect, test } from 'vitest';
import {
  LHCALL_FLUSH_ASYNC,
  LHCALL_FLUSH_TLB,
  LHCALL_NEW_PGTABLE,
  LHCALL_SET_PGD,
  LHCALL_SET_PMD,
  LHCALL_SET_PTE,
} from '../../src/lguest/index.js';
import { Random } from '../isa/random.js';
import {
  FIRST_DATA_PAGE as DATA,
  endedAfterEach,
  KERNEL,
  KERNEL_RWX,
  PAGE,
  PTE,
  pte,
  TestGuest,
  type TestGuestOptions,
  USER_RWX,
} from './testguest.js';

/** What the guest's kernel sees through its page tables, when it has told the host of them and when it has not. */

const made = endedAfterEach((t) => t.check());

async function paged(options: TestGuestOptions = {}): Promise<TestGuest> {
  const t = await made(TestGuest.paged(options));
  await t.number();
  return t;
}

/** An address of a process. */
const V = 0x500000n;
const READ = PTE.V | PTE.R | PTE.U;
const WRITE = READ | PTE.W;

/** Bits of the entry at `gpa` that the host has set. */
async function used(t: TestGuest, gpa: number): Promise<bigint> {
  return (await t.read64(gpa)) & BigInt(PTE.A | PTE.D);
}

describe('demand_page', () => {
  test('sets accessed for a read, which is shown read-only, and dirty with the first write', async () => {
    const t = await paged();
    const at = await t.map(V, DATA, WRITE);
    expect(await t.load(V)).toBe(BigInt(DATA));
    expect(await used(t, at)).toBe(BigInt(PTE.A));
    const { minor } = t.lg.stats.faults;
    expect(await t.load(V)).toBe(BigInt(DATA));
    expect(t.lg.stats.faults.minor).toBe(minor);
    await t.store(V, 7n);
    expect(await used(t, at)).toBe(BigInt(PTE.A | PTE.D));
    expect(t.lg.stats.faults.minor).toBe(minor + 1);
    expect(await t.read64(DATA * PAGE)).toBe(7n);
    // The kernel has taken the dirty bit back, and has told: the next write is seen again.
    await t.write64(at, pte(DATA, WRITE | PTE.A));
    await t.hcall(LHCALL_SET_PTE, BigInt(t.root), V, pte(DATA, WRITE | PTE.A));
    await t.load(V);
    expect(await used(t, at)).toBe(BigInt(PTE.A));
    await t.store(V, 8n);
    expect(await used(t, at)).toBe(BigInt(PTE.A | PTE.D));
  });

  test('a read leaves a page of the host clean, and a page that was never written zeros', async () => {
    const t = await paged();
    const page = t.ramPages - 1;
    t.evict();
    await t.load(t.va(page * PAGE));
    const vpn = t.base / PAGE + page;
    let writable: boolean | undefined;
    t.mm.forEachPresent(vpn, vpn + 1, (_vpn, _pfn, write) => {
      writable = write;
    });
    expect(writable).toBe(false);
  });

  test('superpages, which are shown page by page', async () => {
    const t = await paged({ ramPages: 1024, frames: 1200 });
    const table = 20 * PAGE;
    const giga = 0x1_4000_0000n;
    const index = Number((giga >> 30n) & 511n);
    await t.write64(t.root + index * 8, pte(20, PTE.V));
    await t.write64(table + 8, pte(512, WRITE));
    await t.write64(512 * PAGE, 1n);
    await t.write64(1023 * PAGE, 2n);
    const at = giga + 0x200000n;
    expect(await t.load(at)).toBe(1n);
    expect(await used(t, table + 8)).toBe(BigInt(PTE.A));
    expect(await t.load(at + 511n * 4096n)).toBe(2n);
    await t.store(at + 511n * 4096n, 3n);
    expect(await t.read64(1023 * PAGE)).toBe(3n);
    await t.write64(table + 8, 0n);
    await t.hcall(LHCALL_SET_PMD, BigInt(t.root), at + 0x3000n);
    await expect(t.load(at)).rejects.toThrow('unhandled trap 13');
  });
});

describe('what was changed is seen when it was told', () => {
  test('LHCALL_SET_PTE: the entry alone; one that was used is shown at once', async () => {
    const t = await paged();
    const at = await t.map(V, DATA, WRITE);
    await t.map(V + 4096n, DATA + 1, WRITE);
    await t.load(V);
    await t.load(V + 4096n);
    await t.write64(at, pte(DATA + 2, WRITE | PTE.A | PTE.D));
    expect(await t.load(V)).toBe(BigInt(DATA));
    const { minor } = t.lg.stats.faults;
    await t.hcall(LHCALL_SET_PTE, BigInt(t.root), V, pte(DATA + 2, WRITE | PTE.A | PTE.D));
    expect(await t.load(V)).toBe(BigInt(DATA + 2));
    await t.store(V, 99n);
    expect(await t.load(V + 4096n)).toBe(BigInt(DATA + 1));
    expect(t.lg.stats.faults.minor).toBe(minor);
    expect(await t.read64((DATA + 2) * PAGE)).toBe(99n);
  });

  test('LHCALL_SET_PTE of the kernel’s half holds in all address spaces', async () => {
    const t = await paged();
    const other = await t.newRoot();
    const va = KERNEL + BigInt(DATA * PAGE);
    expect(await t.load(va)).toBe(BigInt(DATA));
    await t.hcall(LHCALL_NEW_PGTABLE, BigInt(other));
    await t.write64(await t.entry(va), pte(DATA + 1, KERNEL_RWX));
    await t.hcall(LHCALL_SET_PTE, BigInt(other), va, pte(DATA + 1, KERNEL_RWX));
    expect(await t.load(va)).toBe(BigInt(DATA + 1));
    await t.hcall(LHCALL_NEW_PGTABLE, BigInt(t.root));
    expect(await t.load(va)).toBe(BigInt(DATA + 1));
  });

  test('LHCALL_SET_PMD, LHCALL_SET_PGD, LHCALL_FLUSH_TLB', async () => {
    const t = await paged();
    const root = BigInt(t.root);
    const change = async (page: number) => {
      await t.write64(await t.entry(V), pte(page, WRITE));
      return BigInt(page);
    };
    await t.map(V, DATA, WRITE);
    await t.load(V);
    let wanted = await change(DATA + 1);
    await t.hcall(LHCALL_SET_PMD, root, V + 0x200000n);
    expect(await t.load(V)).toBe(BigInt(DATA));
    await t.hcall(LHCALL_SET_PMD, root, V - 0x1000n);
    expect(await t.load(V)).toBe(wanted);
    wanted = await change(DATA + 2);
    await t.hcall(LHCALL_SET_PGD, root, 1n);
    expect(await t.load(V)).toBe(wanted - 1n);
    await t.hcall(LHCALL_SET_PGD, root, 0n);
    expect(await t.load(V)).toBe(wanted);
    wanted = await change(DATA + 3);
    await t.hcall(LHCALL_FLUSH_TLB, 0n);
    expect(await t.load(V)).toBe(wanted);

    const va = KERNEL + BigInt(DATA * PAGE);
    await t.load(va);
    await t.write64(await t.entry(va), pte(DATA + 1, KERNEL_RWX));
    await t.hcall(LHCALL_FLUSH_TLB, 0n);
    expect(await t.load(va)).toBe(BigInt(DATA));
    await t.hcall(LHCALL_FLUSH_TLB, 1n);
    expect(await t.load(va)).toBe(BigInt(DATA + 1));
    // Of roots that nobody runs under nothing is known, and nothing is wrong.
    for (const call of [LHCALL_SET_PMD, LHCALL_SET_PTE, LHCALL_SET_PGD]) await t.hcall(call, 0x9000n, 0n, 0n);
  });

  test('a page that was a root, and is one again: what was known of it holds until it is cleared', async () => {
    let n = 0;
    const t = await paged({ options: { random: () => (n++ % 4) / 4 } });
    const [first, again] = [t.root, await t.newRoot()];
    const use = async (page: number) => {
      t.root = again;
      await t.map(V, page, WRITE);
      t.root = first;
      await t.hcall(LHCALL_NEW_PGTABLE, BigInt(again));
    };
    await use(DATA);
    expect(await t.load(V)).toBe(BigInt(DATA));
    await t.hcall(LHCALL_NEW_PGTABLE, BigInt(first));
    await use(DATA + 1);
    expect(await t.load(V)).toBe(BigInt(DATA));
    await t.hcall(LHCALL_NEW_PGTABLE, BigInt(first));
    await t.hcall(LHCALL_SET_PGD, BigInt(again), V >> 30n);
    await use(DATA + 2);
    expect(await t.load(V)).toBe(BigInt(DATA + 2));
    await t.hcall(LHCALL_NEW_PGTABLE, BigInt(first));
    await t.hcall(LHCALL_FLUSH_TLB, 1n);
    await use(DATA + 3);
    expect(await t.load(V)).toBe(BigInt(DATA + 3));
  });

  test('by the ring as by ecall, in its order, round and round', async () => {
    const t = await paged();
    await t.map(V, DATA, WRITE);
    const at = await t.entry(V);
    for (let first = 0; first < 130; first += 13) {
      const pages = Array.from({ length: 13 }, (_, i) => DATA + ((first + i) % 16));
      await t.load(V);
      await t.write64(at, pte(pages[12]!, WRITE));
      const calls = pages.map((page) => [LHCALL_SET_PTE, BigInt(t.root), V, pte(page, WRITE | PTE.A)] as const);
      await t.ring(first, ...calls);
      await t.hcall(LHCALL_FLUSH_ASYNC);
      expect(await t.load(V)).toBe(BigInt(pages[12]!));
      const status = await t.read(t.data('hcallStatus'), 64);
      expect([...status].every((byte) => byte === 0xff)).toBe(true);
    }
  });
});

describe('page directories', () => {
  test('are four, and give way by chance; what each address space shows does not depend on it', async () => {
    const random = new Random(7);
    const t = await paged({ options: { random: () => random.below(2 ** 30) / 2 ** 30 } });
    const roots: number[] = [];
    for (let i = 0; i < 7; i++) {
      const first = t.root;
      const root = await t.newRoot();
      t.root = root;
      await t.map(V, DATA + i, WRITE);
      roots.push(root);
      t.root = first;
    }
    for (let step = 0; step < 120; step++) {
      const i = random.below(roots.length);
      await t.hcall(LHCALL_NEW_PGTABLE, BigInt(roots[i]!));
      expect(await t.load(V)).toBe(await t.read64((DATA + i) * PAGE));
      if (step % 3 === 0) await t.store(V, BigInt(step));
      if (step % 10 === 0) t.check();
      if (step % 40 === 0) t.evict();
    }
    const { switches, victims } = t.lg.stats;
    expect(switches).toBe(121);
    expect(victims).toBeGreaterThan(10);
    expect(victims).toBeLessThan(121);
  });

  test('when tables run out, other address spaces lose theirs, then the present one too', async () => {
    const t = await paged({ options: { nrShadowTables: 16 } });
    // Thirty places, each of which needs two tables of its own.
    const table = 20;
    await t.write64(table * PAGE, pte(21, PTE.V));
    await t.write64(21 * PAGE, pte(DATA, WRITE));
    for (let i = 10; i < 40; i++) await t.write64(t.root + i * 8, pte(table, PTE.V));
    for (let round = 0; round < 2; round++) {
      for (let i = 10n; i < 40n; i++) {
        expect(await t.load(i << 30n)).toBe(BigInt(DATA));
        t.check();
      }
    }
  });

  test('with the kernel’s half shared: a page that one address space has faulted in, another need not', async () => {
    const t = await paged();
    const other = await t.newRoot();
    await t.load(KERNEL + BigInt(40 * PAGE));
    await t.hcall(LHCALL_NEW_PGTABLE, BigInt(other));
    const { minor } = t.lg.stats.faults;
    await t.load(KERNEL + BigInt(40 * PAGE));
    expect(t.lg.stats.faults.minor).toBe(minor);
    await t.map(V, DATA, USER_RWX);
    await expect(t.load(V)).rejects.toThrow('unhandled trap 13');
  });
});

test('devices: an access is the launcher’s, with address and instruction; the kernel’s tables lead there', async () => {
  const t = await paged({ init: { deviceLimit: 80 } });
  await t.map(V, 70, WRITE);
  const pending = await t.call(0, V + 0x18n);
  // ld a2, 0(a0)
  expect(pending).toEqual({ trap: 5, addr: BigInt(70 * PAGE + 0x18), insn: 0x00053603 });
  expect(t.lg.getreg(0)).toBe(BigInt.asUintN(64, KERNEL));
  t.lg.setreg(12, 1234n);
  t.lg.setreg(0, KERNEL + 4n);
  await t.must(t.lg.run());
  expect(t.lg.getreg(12)).toBe(1234n);
  const store = await t.call(0x40, V + 0x20n, 5n);
  expect(store).toEqual({ trap: 7, addr: BigInt(70 * PAGE + 0x20), insn: 0x00b53023 });
});
