import { model } from 'unpin/explore';
import { checkVm, KVM_MEM_LOG_DIRTY_PAGES } from 'unpin/kvm';
import { FIRST, NR_PAGES, OTHER, setup as pagedGuest, RAM } from '../pagedguest.js';

/**
 * What a vCPU's thread reads of shadow entries without the lock, `ShadowPages.peek`, which is the twin of riscv/refill.ts: against the entry's being dropped, its page's
 * being given to others, the dirty log and aging. A translation that was handed out shows as a use (N14), and no word but a leaf entry is written.
 */

const SPTE_A = 64;
const DIRECT_T = 8;
const VPN = RAM / 4096 + FIRST;
/** In this slot of another root and of its table the links lie that the leaf page had in the place of the entry. */
const SLOT = VPN & 511;

const age = ({ mm, va }: Pick<ReturnType<typeof pagedGuest>, 'mm' | 'va'>): boolean =>
  mm.notifiers.clearFlushYoung(va + FIRST * 4096, va + (FIRST + 1) * 4096);

/** The entry is there and was not used, and the thread knows the way to it. */
function setup(flags = 0) {
  const state = pagedGuest();
  const { vm, vcpu, va } = state;
  const { shadow, slots } = vm;
  vm.setUserMemoryRegion({ ...{ slot: 0, guestPhysAddr: RAM, memorySize: NR_PAGES * 4096, userspaceAddr: va }, flags });
  const root = shadow.getRoot(vcpu.hart.satp, 0);
  vcpu.core.mmu.translate(vcpu.hart, VPN * 4096, flags === 0 ? 0 : 1);
  const index = shadow.lookup(root, VPN);
  age(state);
  return { ...state, root, index, slot: slots.all()[0]!, spte: 0, young: false };
}

type State = ReturnType<typeof setup>;

const peek = (state: State) => {
  state.spte = state.vm.shadow.peek(state.root, VPN);
};

/** Somebody learns of the use: by the entry, or because all TLBs are flushed for this frame. */
function useIsLost({ vm, spte, index, slot }: State): string | undefined {
  if (spte === 0) return undefined;
  const direct = slot.direct.readOnce(FIRST);
  if (vm.shadow.spte(index) >>> 12 === spte >>> 12 && (vm.shadow.spte(index) & SPTE_A) !== 0) return undefined;
  return (direct & DIRECT_T) !== 0 ? undefined : 'N14: a translation was handed out, and nothing tells of it';
}

const drops = {
  name: 'the entry is looked at, and then taken away',
  file: 'kvm/shadowtree.ts',
  find: 'if ((pool.entries.exchange(index, 0) & SPTE_A) !== 0)',
  replace: 'const old = pool.entries.load(index); pool.entries.store(index, 0); if ((old & SPTE_A) !== 0)',
  fails: /N14/,
};

export const peekAndDrop = model({
  name: 'kvm: a look without the lock, and another entry in place of its own',
  setup: () => setup(),
  sharesObjects: true,
  mutants: [drops],
  actors: {
    peek,
    /** The guest has changed its pte, and not fenced yet. */
    replace({ vm, root }) {
      const { shadow } = vm;
      vm.tables.lock();
      const tables = [RAM / 4096 + 2, RAM / 4096 + 1, RAM / 4096];
      shadow.install(root, VPN, { gpa: RAM + OTHER * 4096, flags: 0xc7, level: 0, tables }, shadow.generation);
      vm.tables.unlock();
    },
  },
  check(state) {
    checkVm(state.vm);
    return useIsLost(state);
  },
});

export const peekAndEvict = model({
  name: 'kvm: a look without the lock, and its page given away and used for links',
  preemptions: 1,
  setup: () => setup(),
  sharesObjects: true,
  mutants: [
    {
      name: 'the mark is set before it is known that the page is still the same',
      file: 'kvm/shadow.ts',
      find: 'if (spte === 0 || !this.isStill(handle, generation)) return 0;',
      replace: 'if (spte === 0) return 0;',
    },
    {
      name: 'nobody asks whether the page is still the same',
      file: 'kvm/shadow.ts',
      find: 'return this.pool.words.load(POOL_GENERATION) === generation && this.pool.isLive(handle);',
      replace: 'return generation >= 0 && handle >= 0;',
    },
  ],
  actors: {
    peek,
    evict({ vm }) {
      const { shadow } = vm;
      vm.tables.lock();
      for (let k = 1n; k <= 3n; k++) {
        const root = shadow.getRoot((8n << 60n) | (k << 44n) | BigInt(RAM / 4096), 0);
        const walk = {
          gpa: RAM + OTHER * 4096,
          flags: 0xcf,
          level: 0,
          tables: [RAM / 4096 + 2, RAM / 4096 + 1, RAM / 4096],
        };
        shadow.install(root, (SLOT << 18) | (SLOT << 9) | SLOT, walk, shadow.generation);
      }
      vm.tables.unlock();
    },
  },
  check(state) {
    checkVm(state.vm);
    return useIsLost(state);
  },
});

/** Both a page that goes and one that only grows old need it. */
const noMark = {
  name: 'the look leaves no mark',
  file: 'kvm/shadow.ts',
  find: 'if ((spte & SPTE_A) === 0 && pool.entries.compareExchange(index, spte, spte | SPTE_A) !== spte) return 0;',
  replace: '',
  fails: /N14/,
};

export const peekAndReturn = model({
  name: 'kvm: a look without the lock, and its page given away, where the very same word is entered anew',
  setup: () => ({ ...setup(), entered: -1 }),
  sharesObjects: true,
  mutants: [noMark],
  actors: {
    peek,
    /** As prefetch enters it: not used by anybody yet. */
    giveAway(state) {
      const { vm } = state;
      const { shadow } = vm;
      vm.tables.lock();
      const root = shadow.getRoot((8n << 60n) | (1n << 44n) | BigInt(RAM / 4096), 0);
      const tables = [RAM / 4096 + 2, RAM / 4096 + 1, RAM / 4096];
      shadow.tree.evict(state.index >>> 9);
      shadow.install(root, VPN, { gpa: RAM + FIRST * 4096, flags: 0xc7, level: 0, tables }, shadow.generation);
      shadow.pool.entries.writeOnce(shadow.installed, shadow.spte(shadow.installed) & ~SPTE_A);
      state.entered = shadow.installed;
      vm.tables.unlock();
    },
    drop(state) {
      if (state.entered < 0) return;
      const { vm } = state;
      vm.tables.lock();
      vm.shadow.tree.drop(state.entered);
      vm.tables.unlock();
    },
  },
  check(state) {
    checkVm(state.vm);
    return useIsLost(state);
  },
});

export const peekAndLog = model({
  name: 'kvm: a look without the lock, and the dirty log that takes the right to write',
  setup: () => setup(KVM_MEM_LOG_DIRTY_PAGES),
  sharesObjects: true,
  mutants: [
    {
      name: 'the right is taken by a plain store',
      file: 'kvm/shadow.ts',
      find: 'this.pool.entries.fetchAnd(index, ~SPTE_W);',
      replace: 'this.pool.entries.store(index, this.pool.entries.load(index) & ~SPTE_W);',
      fails: /N14/,
    },
  ],
  actors: {
    peek,
    log: ({ vm }) => void vm.getDirtyLog(0),
  },
  check(state) {
    checkVm(state.vm);
    return useIsLost(state);
  },
});

export const peekAndAge = model({
  name: 'kvm: a look without the lock, and aging',
  setup: () => setup(),
  sharesObjects: true,
  mutants: [noMark],
  actors: {
    peek,
    age(state) {
      state.young = age(state);
    },
  },
  check(state) {
    checkVm(state.vm);
    return state.young ? undefined : useIsLost(state);
  },
});
