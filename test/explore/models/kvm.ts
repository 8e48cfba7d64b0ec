import { model } from 'unpin/explore';
import { checkVm, KVM_MEM_LOG_DIRTY_PAGES } from 'unpin/kvm';
import { MAP_ANONYMOUS, MAP_PRIVATE } from 'unpin/mm';
import { DATA, evict, guest, RAM, RW, type State, setSlot, setup, storeIsThere } from '../guest.js';

/**
 * kvm's own protocol: mmu.ts and notify.ts, memslots, shadow entries and the hart's TLB. A vCPU runs on the mm thread and takes turns with the mm
 * where it waits for a page. What is written to hold on threads as well, its direct entries, is explored on two, with a fault of pages that stay present,
 * all that another thread may do of the mm.
 */

const NOTIFY = 'kvm/notify.ts';
const noZap = {
  name: 'start zaps nothing',
  file: NOTIFY,
  find: 'nrZapped += vm.zapVpns(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);',
  replace: 'nrZapped += 0;',
};
const noFlush = {
  name: 'the TLB keeps what the direct entry has lost',
  file: 'kvm/vm.ts',
  find: 'if (!this.flushesHeld) vcpu.flushBarePage(slot.baseGfn + i);',
  replace: '',
};

export const guestAndReclaim = model({
  name: 'kvm: a guest and reclaim',
  setup() {
    const state = setup();
    evict(state);
    return state;
  },
  preemptions: 1,
  threads: [['guest', 'reclaim', 'again']],
  mutants: [noZap, noFlush],
  actors: { guest, reclaim: evict, again: evict },
  check: storeIsThere,
});

export const guestAndSlot = model({
  name: 'kvm: a guest, reclaim, and a memslot that goes and comes back',
  setup() {
    const state = setup();
    evict(state);
    return state;
  },
  preemptions: 1,
  threads: [['guest', 'slot', 'reclaim']],
  mutants: [noZap],
  actors: {
    guest,
    slot(state) {
      setSlot(state, 0);
      setSlot(state, 8192);
    },
    reclaim: evict,
  },
  check: storeIsThere,
});

/** At each step: a direct entry shows what the host maps, with no more rights. */
function wrongEntry({ vm, mm }: State): string | undefined {
  for (const slot of vm.slots.all()) {
    const direct = slot.direct.readOnce(1);
    const pte = mm.pageTable.get(slot.baseVpn + 1);
    if (direct === 0) continue;
    if ((pte & 1) === 0 || pte >>> 12 !== direct >>> 12)
      return `N3: the guest shows frame ${direct >>> 12}, which the page has left`;
    if ((direct & 2) !== 0 && (pte & 2) === 0) return 'N5: the guest may write, the page may not be written';
  }
  return undefined;
}

const MMU = 'kvm/mmu.ts';
const protocol = [
  noZap,
  {
    name: 'no retry is asked for',
    file: MMU,
    find: 'const retry = tables.invalidate.readRetry(seq, hva) || !tables.slots.isCurrent(slot);',
    replace: 'const retry = seq < 0;',
  },
  {
    name: 'M32: seq is read after the look-up',
    file: MMU,
    find: 'const seq = tables.invalidate.readBegin(); const pfn = pages.tryGetPage(hva, flags);',
    replace: 'const pfn = pages.tryGetPage(hva, flags); const seq = tables.invalidate.readBegin();',
  },
  {
    name: 'the retry is asked for before the lock is taken',
    file: MMU,
    find: 'tables.lock(); const retry = tables.invalidate.readRetry(seq, hva) || !tables.slots.isCurrent(slot);',
    replace: 'const retry = tables.invalidate.readRetry(seq, hva); tables.lock();',
  },
];

export const faultAndCow = model({
  name: "kvm: its fault and the host's copy-on-write, on two threads",
  setup() {
    const state = setup();
    state.child = state.mm.fork();
    return state;
  },
  sharesObjects: true,
  invariant: wrongEntry,
  mutants: protocol,
  actors: {
    write: ({ mm, va }) => mm.writeSync(va + DATA, new Uint8Array([3])),
    fault({ vcpu }) {
      for (let k = 0; k < 2; k++) if (vcpu.core.mmu.pteAddress(RAM + DATA, false) > 0) return;
    },
  },
  check(state) {
    checkVm(state.vm);
    return wrongEntry(state);
  },
});

/** A vCPU in a thread of its own that will store to the second page: a fault for writing, tried as often as it is by itself. */
function writeFault({ vcpu }: State): void {
  for (let k = 0; k < 2; k++) if (vcpu.core.mmu.pteAddress(RAM + DATA, true) > 0) return;
}

export const faultAndLog = model({
  name: 'kvm: its fault for writing and the dirty log, on two threads',
  setup() {
    const state = setup();
    state.vm.setUserMemoryRegion({
      ...{ slot: 0, guestPhysAddr: RAM, memorySize: 8192, userspaceAddr: state.va },
      flags: KVM_MEM_LOG_DIRTY_PAGES,
    });
    return state;
  },
  sharesObjects: true,
  mutants: [
    {
      name: 'M34: the bit is set before the lock is taken',
      edits: [
        {
          file: MMU,
          find: 'tables.lock(); const retry = tables.invalidate.readRetry(seq, hva)',
          replace:
            'markDirty(slot, gfn - slot.baseGfn); tables.lock(); const retry = tables.invalidate.readRetry(seq, hva)',
        },
        { file: MMU, find: 'if (write) markDirty(slot, gfn - slot.baseGfn);', replace: '' },
      ],
      fails: /N15/,
    },
  ],
  actors: {
    fault: writeFault,
    log: ({ vm }) => void vm.getDirtyLog(0),
  },
  // What may be written without a fault has its bit set.
  check: ({ vm }) => checkVm(vm) as undefined,
});

export const faultAndNewSlot = model({
  name: 'kvm: its fault, and a slot that goes and another in its place, on two threads',
  setup() {
    const state = setup();
    const other = state.mm.mmap(0, 8192, RW, MAP_PRIVATE | MAP_ANONYMOUS);
    state.mm.writeSync(other + DATA, new Uint8Array([7]));
    return { ...state, other };
  },
  sharesObjects: true,
  mutants: [
    {
      name: 'M29: nobody asks whether the slot is still the same',
      file: MMU,
      find: '|| !tables.slots.isCurrent(slot)',
      replace: '',
      fails: /N3/,
    },
  ],
  actors: {
    fault: writeFault,
    slot({ vm, other }) {
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: 0, userspaceAddr: other });
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: 8192, userspaceAddr: other });
    },
  },
  check: ({ vm }) => checkVm(vm) as undefined,
});
