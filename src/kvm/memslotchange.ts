import { PAGE_SIZE } from '../mm/index.js';
import { startDirtyLog } from './dirtylog.js';
import { checkRegion, KVM_MEM_LOG_DIRTY_PAGES, type UserMemoryRegion } from './memregion.js';
import type { Memslot } from './memslot.js';
import type { Vm } from './vm.js';

/**
 * Memslots that come, move, change and go while vCPUs run (Linux: kvm_set_memslot). On the mm thread.
 *
 * What a slot had entered into shadow tables and TLBs goes with it, what was read from page tables in it is read again, and its words are another's only when every vCPU has
 * flushed. Brackets under way need no adjusting, unlike Linux's: their range is one of host virtual pages, whatever slots show them (M29).
 */
export function setUserMemoryRegion(vm: Vm, region: UserMemoryRegion): void {
  const change = checkRegion(vm.slots, region);
  if (change === 'none') return;
  if (change === 'create') create(vm, region);
  else if (change === 'delete') remove(vm, vm.slots.bySlot(region.slot)!);
  else alter(vm, vm.slots.bySlot(region.slot)!, region);
}

function create(vm: Vm, { slot, flags = 0, guestPhysAddr, memorySize, userspaceAddr }: UserMemoryRegion): void {
  const nrPages = memorySize / PAGE_SIZE;
  const baseGfn = guestPhysAddr / PAGE_SIZE;
  const baseVpn = userspaceAddr / PAGE_SIZE;
  const arenaAddr = vm.slots.alloc(nrPages);
  vm.lockMmu();
  vm.slots.add({ slot, baseGfn, nrPages, baseVpn, flags }, arenaAddr);
  if ((flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0) startDirtyLog(vm, vm.slots.bySlot(slot)!);
  vm.unlockMmu();
}

function remove(vm: Vm, slot: Memslot): void {
  vm.lockMmu();
  vm.zapSlot(slot, 0, slot.nrPages);
  vm.shadow.fence(undefined, undefined);
  vm.slots.remove(slot);
  vm.unlockMmu();
  // Until then a vCPU may be between two looks at the slot's words.
  vm.flushAllTlbs();
  vm.slots.free(slot);
}

/** Another place, other flags, or both: the words stay, what was derived from a place does not. */
function alter(vm: Vm, old: Memslot, { guestPhysAddr, flags = 0 }: UserMemoryRegion): void {
  const baseGfn = guestPhysAddr / PAGE_SIZE;
  const { slot, nrPages, baseVpn } = old;
  const starts = (flags & ~old.flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0;
  vm.lockMmu();
  if (baseGfn !== old.baseGfn) {
    vm.zapSlot(old, 0, nrPages);
    vm.shadow.fence(undefined, undefined);
  }
  vm.slots.add({ slot, baseGfn, nrPages, baseVpn, flags }, old.arenaAddr);
  if (starts) startDirtyLog(vm, vm.slots.bySlot(slot)!);
  vm.unlockMmu();
  vm.flushAllTlbs();
}
