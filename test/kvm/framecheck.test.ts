import { afterEach, expect, test, vi } from 'vitest';
import { Kvm } from '../../src/kvm/index.js';
import { Vm } from '../../src/kvm/vm.js';
import { PROT_READ } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { TaggedHart } from '../../src/riscv/index.js';
import { fsd, ld, lw, sd, sw } from '../isa/assemble.js';
import { A0, A1, code, T0, ZERO } from './guestcode.js';
import { FIRST_DATA_PAGE as DATA, newHost, PAGE, TestVm } from './testvm.js';

/** The checks of a test build (kvm/framecheck.ts): a frame that becomes another's behind the VM's back is seen by the next access, of whatever kind. */

afterEach(() => void vi.restoreAllMocks());

const STOP = sd(ZERO, 0, T0);
const amo = (funct5: number, rs2 = A1): number => 0x302f | (A1 << 7) | (A0 << 15) | (rs2 << 20) | (funct5 << 27);
const LR_D = amo(0x02, ZERO);

async function newVm(...program: number[]): Promise<TestVm> {
  const host = newHost(256);
  const kvm = new Kvm(host, nodeEnvironment(), { nrDecodedPages: 64, checkFrames: true });
  const t = await TestVm.create({ host, kvm });
  await t.mm.write(t.at(1), code(...program));
  // sstatus.FS is not off: fsd is legal.
  t.vcpu.hart.csr.write(0x100, 0x2000, 0);
  return t;
}

function pfnOf(t: TestVm, page: number): number {
  return t.mm.pagemap(t.at(page), 1)[0]!.pfn;
}

/** As if the frame had come back and were given out again. */
function becomesAnothers(t: TestVm, page: number): void {
  const { generation } = t.host.frames;
  generation[pfnOf(t, page)] = generation[pfnOf(t, page)]! + 1;
}

test.each([
  ['a load', 0, [ld(A1, 0, A0)]],
  ['a store', 0, [sw(A1, 0, A0)]],
  ['a store of a float', 0, [fsd(A1, 0, A0)]],
  ['an AMO', 0, [amo(0x00)]],
  ['an AMO by compare-exchange', 0, [amo(0x14)]],
  ['a load-reserved', 0, [LR_D]],
  ['a store-conditional', 0, [LR_D, STOP, amo(0x03)]],
  ['a load over two pages', -2, [lw(A1, 0, A0)]],
  ['a store over two pages', -2, [sw(A1, 0, A0)]],
  ['a load beside it in a pair', 0, [ld(ZERO, 8, A0), ld(A1, 0, A0)]],
])('N3: %s', async (_what, offset, program) => {
  const t = await newVm(...program, STOP);
  vi.spyOn(TaggedHart.prototype, 'checkTlb').mockImplementation(() => {});
  const address = BigInt(t.gpa(DATA) + offset);
  const go = async () => {
    await t.call(PAGE, address, 5n);
    if (program.includes(STOP)) await t.vcpu.run();
  };
  await go();
  await go();
  if (program.includes(STOP)) await t.call(PAGE, address, 5n);
  becomesAnothers(t, DATA);
  const again = program.includes(STOP) ? t.vcpu.run() : t.call(PAGE, address, 5n);
  await expect(again).rejects.toThrow(/BUG N3: hart 0: a stale access at/);
  t.destroy();
});

test('N3: code', async () => {
  const t = await newVm(STOP);
  await t.call(PAGE);
  const { records } = t.vcpu.hart.engine;
  const { get } = records;
  vi.spyOn(records, 'get').mockImplementation((page) => {
    becomesAnothers(t, 1);
    return get.call(records, page);
  });
  t.vcpu.hart.tlb.flushFetches();
  await expect(t.call(PAGE)).rejects.toThrow(/BUG N3: hart 0: a stale access at/);
  t.destroy();
});

/** The VM does not hear of what the host does. */
function deaf(): void {
  vi.spyOn(Vm.prototype, 'zapVpns').mockImplementation(() => 0);
  vi.spyOn(Vm.prototype, 'countDirect').mockImplementation(() => 0);
}

test('N3: a frame that is a child’s alone since the host has copied the page', async () => {
  const t = await newVm(ld(A1, 0, A0), STOP);
  await t.mm.write(t.at(DATA), Uint8Array.of(1));
  await t.call(PAGE, BigInt(t.gpa(DATA)));
  const pfn = pfnOf(t, DATA);
  const child = t.mm.fork();
  await t.call(PAGE, BigInt(t.gpa(DATA)));
  deaf();
  await t.mm.write(t.at(DATA), Uint8Array.of(2));
  await expect(t.call(PAGE, BigInt(t.gpa(DATA)))).rejects.toThrow(`BUG N3: frame ${pfn} is entered; the host has `);
  vi.restoreAllMocks();
  child.exit();
  t.destroy();
});

test('N3 N5: a page that the host has write-protected', async () => {
  const t = await newVm(sd(A1, 0, A0), STOP);
  await t.call(PAGE, BigInt(t.gpa(DATA)), 5n);
  deaf();
  t.mm.mprotect(t.at(DATA), PAGE, PROT_READ);
  await expect(t.call(PAGE, BigInt(t.gpa(DATA)), 6n)).rejects.toThrow(
    /BUG N3: frame \d+ is entered for writing; the host has 0 at/,
  );
  t.destroy();
});
