import { Kvm } from 'unpin/kvm';
import { Host, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from 'unpin/mm';
import { CSR } from 'unpin/riscv';
import { ENV } from './world.js';

/** A guest with a page table of its own over six pages, of which it has used one: what the models of shadow paging begin with. */

export const RAM = 0x8000_0000;
export const RW = PROT_READ | PROT_WRITE;
export const [ROOT, MIDDLE, LEAF, FIRST, NEIGHBOUR, OTHER] = [0, 1, 2, 3, 4, 5];
export const NR_PAGES = 6;
export const LEAF_FLAGS = 0xc7n;
export const READ = 0;

/** A guest of one page table over its pages, that has just read the first of two neighbours. */
export function setup() {
  const host = new Host({ frames: 64, arenaBytes: 2 ** 20, pageTables: 12, defer: ENV.defer });
  const mm = host.createMm();
  const va = mm.mmap(0, NR_PAGES * 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  const put = (page: number, index: number, pte: bigint) =>
    mm.writeSync(va + page * 4096 + index * 8, new Uint8Array(BigUint64Array.of(pte).buffer));
  put(ROOT, 2, pteOf(MIDDLE, 1n));
  put(MIDDLE, 0, pteOf(LEAF, 1n));
  for (let page = 0; page < NR_PAGES; page++) put(LEAF, page, pteOf(page, LEAF_FLAGS));
  for (let page = FIRST; page < NR_PAGES; page++) put(page, 0, BigInt(page));
  const vm = new Kvm(host, ENV, { nrDecodedPages: 4 }).createVm(mm, { nrShadowPages: 3 });
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: NR_PAGES * 4096, userspaceAddr: va });
  const vcpu = vm.createVcpu(0);
  vcpu.hart.csr.write(CSR.satp, RAM / 4096, 8 << 28);
  vcpu.core.mmu.translate(vcpu.hart, RAM + (FIRST - 1) * 4096, READ);
  return { host, mm, va, vm, vcpu, other: 0 };
}

export type State = ReturnType<typeof setup>;

export function pteOf(page: number, flags: bigint): bigint {
  return (BigInt(RAM / 4096 + page) << 10n) | flags;
}
