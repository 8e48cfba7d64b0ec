import { afterAll, beforeAll, expect, test } from 'vitest';
import * as A from '../../src/lguest/index.js';
import { LguestDeath } from '../../src/lguest/index.js';
import { csrrs, csrrw, ECALL, SRET, sfenceVma, WFI } from '../isa/assemble.js';
import {
  A0,
  FIRST_DATA_PAGE as DATA,
  KERNEL,
  newDevice,
  newHost,
  PAGE,
  PTE,
  pte,
  SP,
  TestGuest,
  USER,
  ZERO,
} from './testguest.js';

/** What a guest may not do is its own end, with a reason; the host and its neighbour live. */

type Deed = (t: TestGuest) => Promise<unknown>;

const V = 0x500000n;
const NO_CANON = 1n << 45n;
const RW = PTE.V | PTE.R | PTE.W;
const BIG = 1n << 60n;

const hcall =
  (call: number, ...args: bigint[]): Deed =>
  (t) =>
    t.hcall(call, ...args);

const run =
  (...instructions: number[]): Deed =>
  async (t) =>
    t.call(await t.code(...instructions));

/** An entry of the guest's tables, at each of the three levels for V, is `entry`. */
const table =
  (level: number, entry: bigint): Deed =>
  async (t) => {
    const leaf = await t.map(V, DATA, RW);
    const middle = Number((await t.read64(t.root)) >> 10n) * PAGE;
    const at = level === 0 ? leaf : level === 1 ? middle + 2 * 8 : t.root;
    await t.write64(at, entry);
    return t.load(V);
  };

const DEEDS: readonly (readonly [string, RegExp, Deed])[] = [
  ['sret', /privileged instruction sret .*a guest asks by hypercalls/, run(SRET)],
  ['wfi', /privileged instruction wfi/, run(WFI)],
  ['sfence.vma', /privileged instruction sfence.vma/, run(sfenceVma(ZERO, ZERO))],
  ['a write to satp', /privileged instruction csrrw zero,satp,a0/, run(csrrw(ZERO, 0x180, A0))],
  ['a read of sstatus', /privileged instruction csrrs a0,sstatus,zero/, run(csrrs(A0, 0x100, ZERO))],
  ['an illegal instruction, and no handler', /unhandled trap 2 at pc 0xffffffc\w+ of the kernel, tval 0x0/, run(0)],

  ['an unknown hypercall', /bad hypercall 0x63/, hcall(99)],
  ['a hypercall of 64 bits', /bad hypercall 0x100000002/, hcall(Number((1n << 32n) | 2n))],
  ['LHCALL_LGUEST_INIT a second time', /LHCALL_LGUEST_INIT a second time/, hcall(A.LHCALL_LGUEST_INIT, 4096n)],
  [
    'a message beyond memory',
    /bad read address 0x40000: guest memory ends at 0x40000/,
    hcall(A.LHCALL_SHUTDOWN, 0x40000n, 1n),
  ],
  ['a message of no address', /bad read address/, hcall(A.LHCALL_SHUTDOWN, BIG, 1n)],
  ['a shutdown for no reason', /LHCALL_SHUTDOWN: bad reason 0x3/, hcall(A.LHCALL_SHUTDOWN, 0n, 3n)],
  ['a root beyond memory', /hypercall 4: bad page table 0x40000/, hcall(A.LHCALL_NEW_PGTABLE, 0x40000n)],
  ['a root that is no page', /hypercall 4: bad page table 0x4008/, hcall(A.LHCALL_NEW_PGTABLE, 0x4008n)],
  ['a root of 64 bits', /bad page table 0x1000000000004000/, hcall(A.LHCALL_NEW_PGTABLE, BIG + 0x4000n)],
  [
    'LHCALL_SET_PTE for no address',
    /hypercall 14: bad address 0x200000000000/,
    hcall(A.LHCALL_SET_PTE, 0x4000n, NO_CANON),
  ],
  ['LHCALL_SET_PMD for no address', /hypercall 13: bad address/, hcall(A.LHCALL_SET_PMD, 0x4000n, NO_CANON)],
  ['LHCALL_SET_PGD with a wild index', /LHCALL_SET_PGD: bad index 0x200/, hcall(A.LHCALL_SET_PGD, 0x4000n, 512n)],
  ['LHCALL_SET_PGD with a negative index', /bad index 0xffffffffffffffff/, hcall(A.LHCALL_SET_PGD, 0x4000n, -1n)],
  ['a wild vector', /LHCALL_LOAD_IDT_ENTRY: bad vector 0x40/, hcall(A.LHCALL_LOAD_IDT_ENTRY, 64n, 0n)],
  ['a handler that is misaligned', /bad handler 0x1002/, hcall(A.LHCALL_LOAD_IDT_ENTRY, 8n, 0x1002n)],
  ['a handler of no address', /bad handler/, hcall(A.LHCALL_LOAD_IDT_ENTRY, 8n, NO_CANON)],
  ['a stack of a process', /LHCALL_SET_STACK: bad stack 0x400000/, hcall(A.LHCALL_SET_STACK, USER)],
  ['a stack that ends where the kernel begins', /bad stack 0xffffffc000000000/, hcall(A.LHCALL_SET_STACK, KERNEL)],
  ['a stack that is misaligned', /bad stack 0xffffffc000001008/, hcall(A.LHCALL_SET_STACK, KERNEL + 0x1008n)],
  ['a stack of no address', /bad stack a non-canonical address/, hcall(A.LHCALL_SET_STACK, NO_CANON)],

  [
    'a wild entry of the ring',
    /bad hypercall 0x4d2/,
    async (t) => {
      await t.ring(0, [1234]);
      return t.hcall(A.LHCALL_FLUSH_ASYNC);
    },
  ],
  [
    'LHCALL_SRET in the ring',
    /LHCALL_SRET in the ring/,
    async (t) => {
      await t.ring(0, [A.LHCALL_SRET]);
      return t.hcall(A.LHCALL_FLUSH_ASYNC);
    },
  ],
  [
    'LHCALL_LGUEST_INIT in the ring',
    /LHCALL_LGUEST_INIT a second time/,
    async (t) => {
      await t.ring(0, [A.LHCALL_LGUEST_INIT, 4096n]);
      return t.hcall(A.LHCALL_FLUSH_ASYNC);
    },
  ],

  [
    'a trap without a stack',
    /trap vector 8 at pc 0x400000: no frame can be written to the stack, at a non-canonical/,
    async (t) => {
      await t.process(DATA, [8], ECALL);
      t.lg.cpu.traps.stackTop = Number.NaN;
      return t.sret(USER, 0);
    },
  ],
  [
    'a trap whose stack is not mapped',
    /no frame can be written to the stack, at 0xffffffc0000fffc0/,
    async (t) => {
      await t.process(DATA, [8], ECALL);
      await t.hcall(A.LHCALL_SET_STACK, KERNEL + 0x100000n);
      return t.sret(USER, 0);
    },
  ],
  [
    'a trap whose stack may not be written',
    /no frame can be written to the stack/,
    async (t) => {
      await t.process(DATA, [8], ECALL);
      await t.map(KERNEL + 0x100000n, DATA + 1, PTE.V | PTE.R);
      await t.hcall(A.LHCALL_SET_STACK, KERNEL + 0x101000n);
      return t.sret(USER, 0);
    },
  ],
  [
    'a trap of the kernel with a wild sp',
    /no frame can be written to the stack/,
    async (t) => {
      await t.handler(3, 3);
      t.lg.setreg(SP, NO_CANON);
      return t.call(await t.code(0x100073));
    },
  ],
  [
    'a return to no frame',
    /bad trap frame to return to, at 0x500000/,
    async (t) => {
      t.lg.setreg(SP, V);
      return t.resume();
    },
  ],
  [
    'a return to a frame that is misaligned',
    /bad trap frame to return to/,
    async (t) => {
      t.lg.setreg(SP, t.va(0x2008));
      return t.resume();
    },
  ],
  ['a return to a pc of no address', /unhandled trap 12 at pc 0x200000000000 of a process/, (t) => t.sret(NO_CANON, 0)],

  [
    'a page beyond memory',
    /bad page table entry 0x10007 for 0x500000, level 0: guest memory has 0x40 pages/,
    table(0, pte(64, RW)),
  ],
  [
    'a page far beyond memory',
    /bad page table entry 0x3ffffffffffc07 for 0x500000, level 0/,
    table(0, pte(0, RW) | 0x3ffffffffffc00n),
  ],
  ['a table beyond memory', /bad page table entry 0x10001 for 0x500000, level 1/, table(1, pte(64, PTE.V))],
  ['a table beyond memory in the root', /bad page table entry 0x10001 for 0x500000, level 2/, table(2, pte(64, PTE.V))],
  ['a pointer in the last level', /bad page table entry 0x8001 for 0x500000, level 0/, table(0, pte(DATA, PTE.V))],
  ['a page that is written and not read', /bad page table entry 0x8005/, table(0, pte(DATA, PTE.V | PTE.W))],
  ['reserved bits', /bad page table entry 0x8000000000008007/, table(0, pte(DATA, RW) | (1n << 63n))],
  ['a pointer that is accessed', /bad page table entry 0x8041/, table(1, pte(DATA, PTE.V | PTE.A))],
  ['a superpage that is misaligned', /bad page table entry 0x807 for 0x500000, level 1/, table(1, pte(2, RW))],
  ['a superpage that ends beyond memory', /bad page table entry 0x7 for 0x500000, level 1/, table(1, pte(0, RW))],
  ['a superpage beyond memory in the root', /level 2/, table(2, pte(2 ** 18, RW))],
  [
    'LHCALL_SET_PTE of a page beyond memory',
    /bad page table entry 0x10047/,
    async (t) => {
      await t.map(V, DATA, RW);
      await t.load(V);
      return t.hcall(A.LHCALL_SET_PTE, BigInt(t.root), V, pte(64, RW | PTE.A));
    },
  ],
  [
    'LHCALL_SET_PTE of a pointer',
    /bad page table entry 0x8041/,
    async (t) => {
      await t.map(V, DATA, RW);
      await t.load(V);
      return t.hcall(A.LHCALL_SET_PTE, BigInt(t.root), V, pte(DATA, PTE.V | PTE.A));
    },
  ],
];

const host = newHost(512);
const device = newDevice(host);
let neighbour: TestGuest;

beforeAll(async () => {
  neighbour = await TestGuest.paged({ host, device });
  await neighbour.store(neighbour.va(DATA * PAGE), 7n);
});

afterAll(() => neighbour.end());

test.each(DEEDS)('%s kills the guest that does it', async (_name, reason, deed) => {
  const t = await TestGuest.paged({ host, device });
  await expect(deed(t)).rejects.toThrow(reason);
  const death = await t.lg.run().catch((error: unknown) => error);
  expect(death).toBeInstanceOf(LguestDeath);
  expect((death as LguestDeath).how).toBe('killed');
  t.check();
  t.end();
  expect(await neighbour.load(neighbour.va(DATA * PAGE))).toBe(7n);
  neighbour.check();
});

const INITS: readonly (readonly [string, RegExp, bigint, bigint])[] = [
  ['beyond memory', /no struct lguest_data fits at 0x40000/, 0x40000n, KERNEL],
  ['that ends beyond memory', /no struct lguest_data fits at 0x3f800/, 0x3f800n, KERNEL],
  ['that is misaligned', /no struct lguest_data fits at 0x1004/, 0x1004n, KERNEL],
  ['of 64 bits', /no struct lguest_data fits at 0x1000000000001000/, BIG + 0x1000n, KERNEL],
  [
    'whose kernel is misaligned',
    /kernel_address 0xffffffc000001000 must be a multiple of 1 GiB, not 0/,
    0x1000n,
    KERNEL + 4096n,
  ],
  ['whose kernel is everywhere', /kernel_address 0x0 must be/, 0x1000n, 0n],
  ['whose kernel is nowhere', /kernel_address 0x200000000000 must be/, 0x1000n, NO_CANON],
];

test.each(INITS)('LHCALL_LGUEST_INIT with data %s kills', async (_name, reason, gpa, kernel) => {
  const t = await TestGuest.bare();
  await t.write64(0x1000 + A.LGUEST_DATA.kernelAddress, kernel);
  await expect(t.hcall(A.LHCALL_LGUEST_INIT, gpa)).rejects.toThrow(reason);
  t.check();
  t.end();
});

test('a hypercall before LHCALL_LGUEST_INIT kills; so does a trap', async () => {
  const first = await TestGuest.bare();
  await expect(first.hcall(A.LHCALL_NOTIFY, 1n)).rejects.toThrow('hypercall 17 before LHCALL_LGUEST_INIT');
  first.end();
  const second = await TestGuest.bare();
  await expect(second.load(0x4000_0000n)).rejects.toThrow('unhandled trap 13');
  second.end();
});
