import { expect, test } from 'vitest';
import { fenceRange } from '../../src/kvm/threadsbi.js';
import { TestVm } from './testvm.js';

/** What a remote fence of a range of addresses fences here, page by page. */

const PAGE = 0x1000n;

test.each<[what: string, start: bigint, lenBytes: bigint | undefined, pages: (number | undefined)[]]>([
  ['of one page', PAGE, PAGE, [0x1000]],
  ['of a byte', 0x1fffn, 1n, [0x1000]],
  ['that begins and ends in the middle of pages', 0x1800n, PAGE, [0x1000, 0x2000]],
  ['of two bytes in two pages', 0x1fffn, 2n, [0x1000, 0x2000]],
  ['in the upper half of the addresses', 0xffff_ffc0_0000_0800n, PAGE, [-(2 ** 38), -(2 ** 38) + 0x1000]],
  ['of sixteen pages', 0n, 16n * PAGE, Array.from({ length: 16 }, (_, k) => k * 0x1000)],
  ['of more, which is one of all', 0n, 16n * PAGE + 1n, [undefined]],
  ['of all', 0n, undefined, [undefined]],
])('N11: a fence %s leaves no page out', async (_what, start, lenBytes, pages) => {
  const t = await TestVm.create();
  const { core } = t.vcpu;
  const fenced: [number | undefined, number | undefined][] = [];
  core.mmu.sfenceVma = (_hart, va, asid) => void fenced.push([va, asid]);
  fenceRange(core, start, lenBytes, 5n);
  expect(fenced).toEqual(pages.map((va) => [va, 5]));
  t.destroy();
});
