import type { KernelError } from 'unpin';
import { model, transfer } from 'unpin/explore';
import { checkVm } from 'unpin/kvm';
import {
  checkHost,
  type Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  MMU_NOTIFY_PROTECTION_PAGE,
  type Mm,
} from 'unpin/mm';
import {
  ARENA_BYTES,
  DATA,
  doomedGuest,
  evict,
  guest,
  makeVm,
  RAM,
  RW,
  type State,
  setSlot,
  setup,
  slowSwap,
  storeIsThere,
} from '../guest.js';

/**
 * Memslots and whole VMs that come, move and go beside brackets, faults and prefault (M29, M35, M36, M37). All of it is the mm thread's; between the start
 * and the end of a bracket one waits here, as if a disk were read in between, which makes room for the races of Linux.
 */

const NOTIFY = 'kvm/notify.ts';
const PREFAULT = 'kvm/prefault.ts';
const VM = 'kvm/vm.ts';

/** Of a bracket that waits. */
class BracketState {
  inBracket = false;
  ended = () => {};
  readonly end = new Promise<void>((resolve) => {
    this.ended = resolve;
  });
}

function setupBracket() {
  return Object.assign(new BracketState(), setup());
}

/** A bracket over the page at `va`, with a wait inside. */
async function slowBracket(state: BracketState & { mm: Mm }, va: number): Promise<void> {
  const { mm } = state;
  mm.range.reset(MMU_NOTIFY_PROTECTION_PAGE, true);
  mm.range.add(va / 4096, va / 4096 + 1);
  mm.notifiers.invalidateRangeStart(mm.range.seal());
  state.inBracket = true;
  await transfer('disk read', () => {});
  state.inBracket = false;
  mm.notifiers.invalidateRangeEnd(mm.range);
  state.ended();
}

/** A vCPU lacks the data page. */
const tryFault = ({ vcpu }: State, at = RAM) => vcpu.core.mmu.pteAddress(at + DATA, false) > 0;

async function faults(state: State): Promise<void> {
  tryFault(state);
  await transfer('a turn of others', () => {});
  tryFault(state);
}

/** Entries of the data page, wherever a slot shows it. */
function nrEntries({ vm }: State): number {
  return vm.slots.all().filter((slot) => slot.direct.readOnce(1) !== 0).length;
}

/** Linux's count was that of the slots which a bracket met at its start, and at its end. */
const COUNTED_BY_SLOTS = [
  {
    file: NOTIFY,
    find: 'vm.invalidate.beginRange(range);',
    replace: 'if (vm.slots.all().length > 0) vm.invalidate.beginRange(range);',
  },
  {
    file: NOTIFY,
    find: 'vm.invalidate.end();',
    replace: 'if (vm.slots.all().length > 0) vm.invalidate.end();',
  },
];
const countMutants = [
  { name: 'M29: a bracket counts where there is a slot', edits: COUNTED_BY_SLOTS.slice(0, 1) },
  { name: 'M29: its end counts where there is a slot', edits: COUNTED_BY_SLOTS.slice(1) },
];

export const slotInBracket = model({
  name: 'kvm: a memslot that goes, comes back and moves, a bracket that waits, and faults',
  setup: setupBracket,
  threads: [['faults', 'slot', 'bracket']],
  preemptions: 0,
  mutants: countMutants,
  invariant: (state) => (state.inBracket && nrEntries(state) > 0 ? 'N3: entered between start and end' : undefined),
  actors: {
    faults,
    async slot(state) {
      setSlot(state, 0);
      await transfer('another disk read', () => {});
      setSlot(state, 8192);
      const { vm, va } = state;
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM + 2 ** 20, memorySize: 8192, userspaceAddr: va });
    },
    bracket: (state) => slowBracket(state, state.va + DATA),
  },
  check(state) {
    const { inProgress } = state.vm.invalidate;
    if (inProgress !== 0) return `M29: ${inProgress} brackets are left in progress`;
    if (tryFault(state)) return 'the old place of the slot shows something';
    return tryFault(state, RAM + 2 ** 20) ? undefined : 'M29: no fault succeeds any more';
  },
});

/** The page that prefault waits for, and what another slot would show in its place. */
function setupPrefault() {
  const state = setup();
  const other = state.mm.mmap(0, 8192, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  state.mm.writeSync(other + DATA, new Uint8Array([7]));
  evict(state);
  return { ...state, other, result: '' };
}

export const prefaultAndSlot = model({
  name: 'kvm: prefault, a memslot that goes with its memory, and another in its place',
  setup: setupPrefault,
  preemptions: 0,
  threads: [['prefault', 'slot', 'reclaim']],
  mutants: [
    {
      name: 'M36: prefault keeps the lock while it waits for the page',
      file: PREFAULT,
      find: 'await vm.mm.faultIn(hva, 0);',
      replace: 'vm.lockMmu(); try { await vm.mm.faultIn(hva, 0); } finally { vm.unlockMmu(); }',
      fails: /^(deadlock|lost wake-up): /,
    },
    {
      name: 'M36: the memory of a slot that has gone is an error of the one in its place',
      file: PREFAULT,
      find: 'if (vm.slots.hva(gpa) === hva) throw error;',
      replace: 'throw error;',
      fails: /EFAULT/,
    },
  ],
  actors: {
    async prefault(state) {
      try {
        await state.vcpu.preFaultMemory({ gpa: RAM + DATA, size: 4096 });
        state.result = 'done';
      } catch (error) {
        state.result = (error as KernelError).code;
      }
    },
    async slot(state) {
      setSlot(state, 0);
      state.mm.munmap(state.va, 8192);
      await transfer('disk read', () => {});
      setSlot({ vm: state.vm, va: state.other }, 8192);
    },
    reclaim: evict,
  },
  check({ result, vm, vcpu, host }) {
    checkVm(vm);
    vcpu.destroy();
    checkHost(host);
    return result === 'done' || result === 'ENOENT' ? undefined : `M36: prefault ended with ${result}`;
  },
});

const PATTERN = 0x5a;

/** The most bytes that the arena has in one piece, to the page. */
function largestPiece(host: Host): number {
  let [fits, no] = [0, ARENA_BYTES];
  while (no - fits > 4096) {
    const lenBytes = (fits + no) / 2;
    try {
      host.arenaFree(host.arenaAlloc(lenBytes, 64), lenBytes);
      fits = lenBytes;
    } catch {
      no = lenBytes;
    }
  }
  return fits;
}

/** A second VM, whose words are somebody else's as soon as it is gone. */
function setupTeardown() {
  const state = setup();
  const { host, kvm, mm, va } = state;
  const lenBytes = largestPiece(host);
  const doomed = makeVm(kvm, mm, va);
  evict(state);
  return Object.assign(new BracketState(), { ...state, doomed, lenBytes, addr: 0 });
}

type Teardown = ReturnType<typeof setupTeardown>;

/** Destroys the VM, as soon as that is not refused, and takes what it had. */
async function destroy(state: Teardown): Promise<void> {
  const { doomed, host, lenBytes } = state;
  for (;;) {
    try {
      void doomed.vm.destroy();
      break;
    } catch (error) {
      if ((error as KernelError).code !== 'EBUSY') throw error;
      await state.end;
    }
  }
  try {
    state.addr = host.arenaAlloc(lenBytes, 64);
  } catch {
    throw new Error('M35: the VM has not given back all that it had');
  }
  host.u8.fill(PATTERN, state.addr, state.addr + lenBytes);
}

export const teardown = model({
  name: 'kvm: a VM that is destroyed beside a bracket that waits, and its guest, which waits for a page',
  setup: setupTeardown,
  preemptions: 0,
  threads: [['guest', 'destroy', 'bracket']],
  mutants: [
    {
      name: 'M37: nothing is refused while a bracket is open',
      file: 'mm/notifier/notifier.ts',
      find: "if (this.brackets.isOpen) throw new KernelError('EBUSY', syscall, 'must not be called while a bracket is open');",
      replace: '',
    },
    {
      name: 'M37: the VM is destroyed and still registered',
      edits: [
        {
          file: VM,
          find: 'mmuNotifierUnregister(this.subscription); this.destroyed = true;',
          replace: 'this.destroyed = true;',
        },
        { file: VM, find: 'mmuNotifierUnpin(this.subscription);', replace: '' },
      ],
    },
    {
      name: 'M37: the vCPU enters the guest after it has waited, whatever has become of its VM',
      file: 'kvm/vcpu.ts',
      find: 'if (this.vm.ended !== undefined) return this.dead(this.vm.ended);',
      replace: '',
    },
    {
      name: 'M35: the tables are not given back',
      file: VM,
      find: 'this.tables.free(this.host);',
      replace: '',
      fails: /M35/,
    },
  ],
  actors: {
    guest: ({ doomed }) => doomedGuest(doomed),
    destroy,
    // Elsewhere in the mm: a guest in its range would try again and again.
    bracket: (state) => slowBracket(state, state.va + 2 ** 20),
  },
  check({ host, vm, vcpu, addr, lenBytes }) {
    // WHY as a Buffer: byte by byte in the explorer's code it takes most of the time of the model.
    const had = Buffer.from(host.memory.buffer, addr, lenBytes);
    if (!had.equals(Buffer.alloc(lenBytes, PATTERN))) return 'M37: what the VM had was written after it was destroyed';
    checkVm(vm);
    vcpu.destroy();
    checkHost(host);
    return undefined;
  },
});

/** Each time a page has been read, all that can be taken is taken. */
class EvictingSwap extends MemorySwap {
  private readonly disk = slowSwap();
  host: Host | undefined;

  override async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await this.disk.read(slots, frames);
    if (this.host !== undefined) evict({ host: this.host });
  }

  override write(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    return this.disk.write(slots, frames);
  }

  override writeSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    this.disk.writeSync(slots, frames);
  }

  override readSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    this.disk.readSync(slots, frames);
  }
}

export const progress = model({
  name: 'kvm: an instruction that needs three pages, and reclaim that takes what it can whenever one comes',
  setup() {
    const swap = new EvictingSwap({ sizeBytes: 65536 });
    const state = setup({ swap, nrPages: 3, storeAt: DATA + 4092 });
    evict(state);
    swap.host = state.host;
    return { ...state, swap };
  },
  preemptions: 0,
  threads: [['guest', 'reclaim']],
  mutants: [
    {
      name: 'M31: what an instruction has waited for is not kept until it has retired',
      file: 'kvm/vcpu.ts',
      find: 'this.held.hold(pfn);',
      replace: 'this.vm.mm.putPage(pfn);',
      fails: /^livelock: /,
    },
  ],
  actors: { guest, reclaim: evict },
  check(state) {
    state.swap.host = undefined;
    return storeIsThere(state, 4092);
  },
});
