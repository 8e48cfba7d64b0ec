import { PAGE_SIZE } from '../mm/index.js';
import { DIRECT_A, DIRECT_V, type Memslot } from './memslot.js';
import type { Vm } from './vm.js';

/**
 * Whether a guest has used its pages (N14): by direct entries, which harts without paging and walks of the guest's tables mark, and by shadow entries. Called with mmuLock
 * held. Linux: kvm_age_gfn, kvm_test_age_gfn.
 */

/** Whether the guest used the host virtual pages [start, end) (bytes) since the last call. */
export function clearYoungVpns(vm: Vm, start: number, end: number): boolean {
  return isAnyPage(vm, start, end, (slot, i) => clearYoung(vm, slot, i));
}

/** The same question, which changes nothing. */
export function testYoungVpns(vm: Vm, start: number, end: number): boolean {
  return isAnyPage(vm, start, end, (slot, i) => vm.shadow.testYoung(slot, i));
}

/** Asks of each page of a memslot that shows one of the bytes [start, end). */
function isAnyPage(vm: Vm, start: number, end: number, ask: (slot: Memslot, i: number) => boolean): boolean {
  let any = false;
  for (const slot of vm.slots.all()) {
    const first = Math.max(start / PAGE_SIZE - slot.baseVpn, 0);
    const last = Math.min(end / PAGE_SIZE - slot.baseVpn, slot.nrPages);
    for (let i = first; i < last; i++) any = ask(slot, i) || any;
  }
  return any;
}

function clearYoung(vm: Vm, slot: Memslot, i: number): boolean {
  const direct = slot.direct.readOnce(i);
  if ((direct & DIRECT_V) === 0) return false;
  slot.direct.fetchAnd(i, ~DIRECT_A);
  const young = vm.shadow.clearYoung(slot, i);
  if ((direct & DIRECT_A) === 0) return young;
  for (const vcpu of vm.vcpus) vcpu.flushBarePage(slot.baseGfn + i);
  return true;
}
