import { model } from 'unpin/explore';
import { checkVm, KVM_MEM_LOG_DIRTY_PAGES } from 'unpin/kvm';
import { MADV_DONTNEED, MAP_ANONYMOUS, MAP_PRIVATE } from 'unpin/mm';
import {
  FIRST,
  LEAF,
  LEAF_FLAGS,
  NEIGHBOUR,
  NR_PAGES,
  OTHER,
  pteOf,
  RAM,
  READ,
  RW,
  type State,
  setup,
} from '../pagedguest.js';

/**
 * kvm's shadow fault in one hold of the lock, and what it enters beside its page (fastfault.ts, prefetch.ts), in a thread of a vCPU's own, against all that may
 * happen to a neighbour: the host takes it away, its slot goes and another comes, the guest changes its pte and fences.
 */

/** In sequence: the pages that follow are entered too. */
const fault = ({ vcpu }: State) => void vcpu.core.mmu.translate(vcpu.hart, RAM + FIRST * 4096, READ);

/** A direct entry of the neighbour shows what the host maps, with no more rights. */
function wrongEntry({ vm, mm }: State): string | undefined {
  for (const slot of vm.slots.all()) {
    const direct = slot.direct.readOnce(NEIGHBOUR);
    const pte = mm.pageTable.get(slot.baseVpn + NEIGHBOUR);
    if (direct === 0) continue;
    if ((pte & 1) === 0 || pte >>> 12 !== direct >>> 12)
      return `N3: the guest shows frame ${direct >>> 12}, which the page has left`;
    if ((direct & 2) !== 0 && (pte & 2) === 0) return 'N5: the guest may write, the page may not be written';
  }
  return undefined;
}

const anyBracket = {
  name: 'a bracket under way is not looked at',
  file: 'kvm/prefetch.ts',
  find: 'if (window === 0 || this.tables.invalidate.inProgress !== 0) return;',
  replace: 'if (window === 0) return;',
  fails: /N3/,
};
const noZap = {
  name: 'start zaps nothing',
  file: 'kvm/notify.ts',
  find: 'nrZapped += vm.zapVpns(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);',
  replace: 'nrZapped += 0;',
};

export const prefetchAndZap = model({
  name: 'kvm: prefetch, and the host that takes the neighbour away',
  setup,
  sharesObjects: true,
  invariant: wrongEntry,
  mutants: [anyBracket, noZap],
  actors: {
    fault,
    zap: ({ mm, va }) => void mm.madvise(va + NEIGHBOUR * 4096, 4096, MADV_DONTNEED),
  },
  check(state) {
    checkVm(state.vm);
    return wrongEntry(state);
  },
});

export const faultAndCow = model({
  name: "kvm: its fault in one hold of the lock, and the host's copy-on-write",
  setup() {
    const state = setup();
    state.mm.fork();
    return state;
  },
  sharesObjects: true,
  invariant: wrongEntry,
  mutants: [
    {
      name: 'a bracket under way is not looked at',
      file: 'kvm/fastfault.ts',
      find: 'if (this.tables.invalidate.inProgress !== 0) return 0;',
      replace: '',
      fails: /N3/,
    },
  ],
  actors: {
    fault: ({ vcpu }) => void vcpu.core.mmu.translate(vcpu.hart, RAM + NEIGHBOUR * 4096, READ),
    write: ({ mm, va }) => mm.writeSync(va + NEIGHBOUR * 4096, new Uint8Array([9])),
  },
  check(state) {
    checkVm(state.vm);
    return wrongEntry(state);
  },
});

export const prefetchAndSlot = model({
  name: 'kvm: prefetch, and the slot that goes and another in its place',
  setup() {
    const state = setup();
    state.other = state.mm.mmap(0, NR_PAGES * 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS);
    for (let page = 0; page < NR_PAGES; page++) {
      const bytes = new Uint8Array(4096);
      state.mm.readSync(state.va + page * 4096, bytes);
      state.mm.writeSync(state.other + page * 4096, bytes);
    }
    return state;
  },
  sharesObjects: true,
  mutants: [
    {
      name: 'what the slot has shown stays',
      file: 'kvm/memslotchange.ts',
      find: 'vm.zapSlot(slot, 0, slot.nrPages); vm.shadow.fence(undefined, undefined); vm.slots.remove(slot);',
      replace: 'vm.slots.remove(slot);',
    },
  ],
  actors: {
    fault,
    slot({ vm, va, other }) {
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: 0, userspaceAddr: va });
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: NR_PAGES * 4096, userspaceAddr: other });
    },
  },
  check(state) {
    checkVm(state.vm);
    return wrongEntry(state);
  },
});

export const prefetchAndFence = model({
  name: 'kvm: prefetch, and the guest that changes the pte of the neighbour and fences',
  setup,
  sharesObjects: true,
  mutants: [
    {
      name: 'a fence does nothing',
      file: 'kvm/shadowfence.ts',
      find: 'const generation = this.pool.nextGeneration(); if (vpn',
      replace: 'const generation = this.pool.generation; if (generation > 0) return; if (vpn',
    },
  ],
  actors: {
    fault,
    /** Another hart of the guest. */
    fence({ host, mm, va, vm }) {
      const table = mm.pageTable.get(va / 4096 + LEAF) >>> 12;
      const at = table * 1024 + NEIGHBOUR * 2;
      Atomics.store(new Int32Array(host.memory.buffer), at, Number(BigInt.asIntN(32, pteOf(OTHER, LEAF_FLAGS))));
      vm.tables.lock();
      vm.shadow.fence(undefined, undefined);
      vm.tables.unlock();
    },
  },
  check({ vcpu, vm, host }) {
    checkVm(vm);
    vcpu.hart.tlbFlushAll();
    const at = vcpu.hart.hostAddress(RAM + NEIGHBOUR * 4096, READ);
    const found = at < 0 ? at : host.u8[at];
    return found === OTHER ? undefined : `the guest reads page ${found} where its pte, since the fence, says ${OTHER}`;
  },
});

/** What the hart has of a store's translation once the dirty log has taken the right between the fault and the shadow entry. */
const WRITE = 1;
const PAGE_FAULT = 1;

export const storeAndLog = model({
  name: "kvm: a store's fault of several holds of the lock, and the dirty log",
  setup() {
    const state = setup();
    const { vm, mm, va } = state;
    const memorySize = NR_PAGES * 4096;
    vm.setUserMemoryRegion({
      slot: 0,
      guestPhysAddr: RAM,
      memorySize,
      userspaceAddr: va,
      flags: KVM_MEM_LOG_DIRTY_PAGES,
    });
    // The store needs a page of its own, which takes more than the lock.
    mm.fork();
    // The vCPU's thread flushes by itself, when it comes out.
    vm.flushAllTlbs = () => {};
    return { ...state, at: 0 };
  },
  sharesObjects: true,
  mutants: [
    {
      name: 'a right that was taken meanwhile is not asked for again',
      file: 'kvm/mmu.ts',
      find: 'if (spte === 0 || !permits(spte, access, user, hart.sum, hart.mxr)) return this.translate(hart, va, access);',
      replace: 'if (spte === 0) return this.translate(hart, va, access);',
      fails: /page fault/,
    },
  ],
  actors: {
    store(state) {
      state.at = state.vcpu.hart.hostAddress(RAM + FIRST * 4096, WRITE);
    },
    log: ({ vm }) => void vm.getDirtyLog(0),
  },
  check: ({ at, vm }) => {
    vm.vcpus[0]!.hart.tlbFlushAll();
    checkVm(vm);
    return at === -PAGE_FAULT ? 'the guest gets a page fault for a store that its tables allow' : undefined;
  },
});
