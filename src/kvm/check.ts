import { bug } from '../base/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import type { Hart } from '../riscv/index.js';
import { KVM_MEM_LOG_DIRTY_PAGES } from './memregion.js';
import { DIRECT_V, DIRECT_W, type Memslot } from './memslot.js';
import { checkShadowPages } from './shadowcheck.js';
import { REQ_TLB_FLUSH } from './vcpustate.js';
import type { Vm } from './vm.js';

/**
 * The whole-state checker of a VM, for tests, while no vCPU is in the guest. Throws BrokenInvariant.
 *
 * N3: what the host maps is the most that a direct entry allows, a direct entry the most that a shadow entry allows, and both the most
 * that a TLB allows. N15: what may be written without a fault is in the dirty log. S9: the chain of a guest frame is exactly the shadow entries that show it.
 */
export function checkVm(vm: Vm): void {
  const rights = new Map<number, number>();
  for (const slot of vm.slots.all()) checkSlot(vm, slot, rights);
  checkPfnCaches(vm);
  checkChains(vm, checkShadow(vm));
  // Who flushes before it enters the guest uses nothing of its TLB (N24).
  for (const { hart, state } of vm.vcpus) if (!state.pending(REQ_TLB_FLUSH)) checkTlb(hart, rights);
}

/** Notes in `rights` what each frame may be used for. */
function checkSlot(vm: Vm, slot: Memslot, rights: Map<number, number>): void {
  const host = new Map<number, { pfn: number; write: boolean }>();
  vm.mm.forEachPresent(slot.baseVpn, slot.baseVpn + slot.nrPages, (vpn, pfn, write) => host.set(vpn, { pfn, write }));
  for (let i = 0; i < slot.nrPages; i++) {
    const direct = slot.direct.readOnce(i);
    if ((direct & DIRECT_V) === 0) continue;
    const pte = host.get(slot.baseVpn + i);
    const gfn = slot.baseGfn + i;
    if (pte?.pfn !== direct >>> 12) bug('N3', `gfn ${gfn} shows frame ${direct >>> 12}, the host maps ${pte?.pfn}`);
    if ((direct & DIRECT_W) !== 0 && !pte.write) bug('N5', `gfn ${gfn} is writable, the host's pte is not`);
    if ((direct & DIRECT_W) !== 0 && !isLogged(slot, i)) bug('N15', `gfn ${gfn} is writable, and not in the dirty log`);
    rights.set(pte.pfn, direct | (rights.get(pte.pfn) ?? 0));
  }
}

/** What devices remember of guest memory is what the host maps (M30). */
function checkPfnCaches(vm: Vm): void {
  for (const cache of vm.pfnCaches) {
    if (!cache.check()) continue;
    const { vpn, pfn, writable } = cache.mapping;
    const pte = { pfn: -1, write: false };
    vm.mm.forEachPresent(vpn, vpn + 1, (_vpn, pfn, write) => Object.assign(pte, { pfn, write }));
    if (pte.pfn !== pfn) bug('N3', `a pfn cache shows frame ${pfn}, the host maps ${pte.pfn}`);
    if (writable && !pte.write) bug('N5', `a pfn cache may write frame ${pfn}, the host's pte may not`);
  }
}

/** Whether the page counts as written, or nobody wants to know. */
function isLogged(slot: Memslot, i: number): boolean {
  if ((slot.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0) return true;
  return ((slot.dirty.readOnce(i >>> 5) >>> (i & 31)) & 1) === 1;
}

/** Guest frames of shadow entries, by index. */
function checkShadow(vm: Vm): Map<number, number> {
  const gfns = new Map<number, number>();
  checkShadowPages(vm.shadow, vm.slots);
  vm.shadow.forEachLeaf((index) => gfns.set(index, vm.shadow.gfn(index)));
  return gfns;
}

function checkChains(vm: Vm, gfns: Map<number, number>): void {
  let nrChained = 0;
  for (const slot of vm.slots.all()) {
    for (let i = 0; i < slot.nrPages; i++) {
      for (const index of vm.shadow.chain(slot.rmap.readOnce(i))) {
        nrChained++;
        if (gfns.get(index) !== slot.baseGfn + i) bug('S9', `spte ${index} is in the chain of gfn ${slot.baseGfn + i}`);
      }
    }
  }
  if (nrChained !== gfns.size) bug('S9', `${gfns.size} shadow entries, ${nrChained} of them in chains`);
}

function checkTlb(hart: Hart, rights: Map<number, number>): void {
  hart.forEachTlbEntry((va, hostAddress, write) => {
    const right = rights.get(Math.floor(hostAddress / PAGE_SIZE)) ?? 0;
    const needed = write ? DIRECT_W : DIRECT_V;
    if ((right & needed) === 0) bug('N3', `the TLB maps 0x${va.toString(16)} to 0x${hostAddress.toString(16)}`);
  });
}
