import { expect, test } from 'vitest';
import { KVM_MEM_READONLY, VmMemory } from '../../src/kvm/index.js';
import { RAM_BASE } from '../../src/machine/index.js';
import { MADV_PAGEOUT } from '../../src/mm/index.js';
import { ld, sd } from '../isa/assemble.js';
import { FaultySwap } from '../mm/faultyswap.js';
import { A0, A1, code, T0, ZERO } from './guestcode.js';
import { PAGE, STOP, TestVm } from './testvm.js';

/** A VM's memory as its devices reach it: through the mm, while pages go and vCPUs run. */

function pattern(lenBytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: lenBytes }, (_, i) => (i * 31 + seed + (i >>> 8)) & 0xff);
}

/** Takes the pages from `first` on away. */
async function pageOut(t: TestVm, first: number, nrPages: number): Promise<void> {
  t.mm.madvise(t.at(first), nrPages * PAGE, MADV_PAGEOUT);
  await t.host.writeback.drain();
}

test('N15: what a device writes to more memory than there are frames is there when it is read, and none of it is pinned', async () => {
  const t = await TestVm.create({ frames: 96, ramPages: 300 });
  const memory = new VmMemory(t.vm);
  const lenBytes = 240 * PAGE;
  const at = t.gpa(20) + 100;
  await memory.write(at, pattern(lenBytes, 1));
  const seen = new Uint8Array(lenBytes);
  await memory.read(at, seen);
  expect(Buffer.compare(seen, pattern(lenBytes, 1))).toBe(0);
  expect(t.host.stats().swapInPages).toBeGreaterThan(100);
  expect(await t.load(t.gpa(21))).toBe(new DataView(seen.buffer).getBigUint64(PAGE - 100, true));
  expect(t.host.stats().pinnedFrames).toBe(0);
  t.check();
  t.destroy();
});

test('what is present moves at once, what is not is waited for', async () => {
  const t = await TestVm.create();
  const memory = new VmMemory(t.vm);
  await memory.write(t.gpa(20), pattern(2 * PAGE, 3));
  expect(memory.write(t.gpa(20), pattern(2 * PAGE, 4))).toBeUndefined();
  expect(memory.load16(t.gpa(20) + 2)).toBe(pattern(4, 4)[2]! + 256 * pattern(4, 4)[3]!);
  expect(memory.store16(t.gpa(20), 0xabcd)).toBeUndefined();
  await pageOut(t, 20, 2);
  const waiting = [memory.read(t.gpa(21), new Uint8Array(8)), memory.load16(t.gpa(20))];
  expect(waiting.map((w) => w instanceof Promise)).toEqual([true, true]);
  expect((await Promise.all(waiting))[1]).toBe(0xabcd);
  await pageOut(t, 20, 2);
  await Promise.all([memory.store16(t.gpa(20), 1), memory.write(t.gpa(20) + 2, Uint8Array.of(2))]);
  expect((await t.load(t.gpa(20))) & 0xffffffn).toBe(0x020001n);
  t.check();
  t.destroy();
});

test('a device that waits for a page holds no vCPU up', async () => {
  const swap = new FaultySwap(256);
  const t = await TestVm.create({ swap });
  const memory = new VmMemory(t.vm);
  await memory.write(t.gpa(20), pattern(PAGE, 5));
  await pageOut(t, 20, 1);
  swap.held = true;
  const seen = new Uint8Array(PAGE);
  let done = false;
  const reading = Promise.resolve(memory.read(t.gpa(20), seen)).then(() => {
    done = true;
  });
  await t.store(t.gpa(30), 7n);
  expect([await t.load(t.gpa(30)), done]).toEqual([7n, false]);
  await new Promise((resolve) => setImmediate(resolve));
  expect([done, swap.nrHeld]).toEqual([false, 1]);
  swap.held = false;
  swap.pump();
  await reading;
  expect(seen).toEqual(pattern(PAGE, 5));
  t.destroy();
});

test('outside RAM, and for writing in a read-only slot, EFAULT names the address', async () => {
  const t = await TestVm.create();
  const memory = new VmMemory(t.vm);
  const end = t.gpa(64);
  expect(() => memory.read(RAM_BASE - 8, new Uint8Array(4))).toThrow(/EFAULT.*0x7ffffff8 must be in RAM/);
  expect(() => memory.write(2 ** 60, new Uint8Array(4))).toThrow(/EFAULT.* must be in RAM/);
  expect(() => memory.store16(end, 1)).toThrow(/EFAULT/);
  expect(memory.covers(end - 8, 8)).toBe(true);
  expect([memory.covers(end - 8, 9), memory.covers(0, 1)]).toEqual([false, false]);
  // What lies before the end has moved.
  const across = async () => await memory.write(end - 4, new Uint8Array(8).fill(9));
  await expect(across()).rejects.toThrow(/EFAULT/);
  expect((await t.load(end - 8)) >> 32n).toBe(0x09090909n);

  const slot = { slot: 1, guestPhysAddr: 0x1_0000_0000, memorySize: PAGE, userspaceAddr: t.at(40) };
  t.vm.setUserMemoryRegion({ ...slot, flags: KVM_MEM_READONLY });
  await memory.read(0x1_0000_0000, new Uint8Array(4));
  expect(() => memory.write(0x1_0000_0000, new Uint8Array(4))).toThrow(/EFAULT.*RAM that may be written/);
  t.destroy();
  expect(() => memory.read(t.gpa(20), new Uint8Array(4))).toThrow(/ENODEV.*destroyed/);
});

test('a guest runs the code that a device wrote, not what was there', async () => {
  const t = await TestVm.create();
  const memory = new VmMemory(t.vm);
  const routine = (offset: number) => code(ld(A1, offset, A0), sd(ZERO, 0, T0));
  const run = async () => {
    const exit = await t.call(20 * PAGE, BigInt(t.gpa(30)));
    expect(exit).toMatchObject({ physAddr: STOP });
    return t.vcpu.hart.getX(A1);
  };
  await memory.write(t.gpa(30), Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 2));
  await memory.write(t.gpa(20), routine(0));
  expect(await run()).toBe(1n);
  await memory.write(t.gpa(20), routine(8));
  expect(await run()).toBe(2n);
  t.destroy();
});
