import { model, transfer } from 'unpin/explore';
import { checkHost, MMU_NOTIFY_CLEAR, mmuNotifierUnregister } from 'unpin/mm';
import { Device } from '../externaldevice.js';
import { lateSeq, noCount, noDead, noSeq, noZap } from '../externalmutants.js';
import { coherent, nothingLost, type State, setup, writer } from '../onepage.js';

/**
 * Subscriptions that come and go beside brackets and faults (N10, N16, N17, N18), and drivers that refuse a bracket (N12).
 *
 * In mm nothing waits between the start and the end of a bracket. Here one does, as if a disk were read in between: then registration and
 * unregistration are refused.
 */

const NOTIFIER = 'mm/notifier/notifier.ts';
const BRACKETS = 'mm/notifier/brackets.ts';
const NO_REFUSAL = {
  name: 'nothing is refused while a bracket is open',
  file: NOTIFIER,
  find: "if (this.brackets.isOpen) throw new KernelError('EBUSY', syscall, 'must not be called while a bracket is open');",
  replace: '',
};

/** DONTNEED of the page, with a wait inside the bracket. */
async function slowDontneed({ mm, va }: State): Promise<void> {
  const { notifiers, range } = mm;
  range.reset(MMU_NOTIFY_CLEAR, true);
  range.add(va / 4096, va / 4096 + 1);
  notifiers.invalidateRangeStart(range.seal());
  await transfer('disk read', () => {});
  const i = mm.pageTable.find(va / 4096);
  mm.pageTable.words.writeOnce(i, 0);
  notifiers.invalidateRangeEnd(range);
}

/** What `call` does, or that it was refused with `code`. */
function refusedWith(code: string, call: () => void): boolean {
  try {
    call();
    return false;
  } catch (error) {
    if ((error as { code?: string }).code === code) return true;
    throw error;
  }
}

function withLate() {
  const state = setup();
  return { ...state, late: new Device(state.mm, state.va, 'late', { unregistered: true }), refused: false };
}

export const registerInBracket = model({
  name: 'registration, a bracket that waits, and a fault',
  setup: withLate,
  threads: [['dontneed', 'register']],
  invariant: ({ device, late }) => device.wrong ?? late.wrong,
  mutants: [noSeq, noCount, NO_REFUSAL],
  actors: {
    dontneed: slowDontneed,
    register(state) {
      state.refused = refusedWith('EBUSY', () => state.late.register());
      if (!state.refused) state.late.read();
    },
    reader: ({ device }) => void device.read(),
  },
  check({ device, late, refused }) {
    if (late.nrStray !== 0) return 'N16: the first event was the end of a bracket';
    if (refused && late.sub !== undefined) return 'N16: refused, and registered all the same';
    if (device.inProgress + late.inProgress !== 0) return 'N12: a bracket was left open';
    return device.wrong ?? late.wrong;
  },
});

/** The device begins as soon as it is told that it may: registration is done by then, and whatever comes next is heard. */
export const registerAndFault = model({
  name: 'registration, DONTNEED and the first fault',
  setup: withLate,
  invariant: ({ late }) => late.wrong,
  mutants: [
    noSeq,
    noZap,
    lateSeq,
    {
      name: 'the device begins before it is registered',
      file: 'models/registration.ts',
      find: 'mm.madviseDontneed(va, 4096); mm.writeSync(va, new Uint8Array([1])); late.register(); late.allow();',
      replace: 'late.allow(); mm.madviseDontneed(va, 4096); late.register();',
    },
  ],
  actors: {
    mm({ mm, va, late }) {
      mm.madviseDontneed(va, 4096);
      mm.writeSync(va, new Uint8Array([1]));
      late.register();
      late.allow();
      mm.madviseDontneed(va, 4096);
    },
    late({ late }) {
      if (late.isAllowed()) late.read();
    },
  },
  check({ host, late }) {
    if (late.frame !== 0) return `N16: the device maps frame ${late.frame}, which the page has left`;
    checkHost(host);
    return undefined;
  },
});

export const unregisterInBracket = model({
  name: 'unregistration, and a bracket that waits',
  setup: () => ({ ...setup(), refused: false }),
  threads: [['dontneed', 'unregister']],
  mutants: [NO_REFUSAL],
  actors: {
    dontneed: slowDontneed,
    unregister(state) {
      state.refused = refusedWith('EBUSY', () => mmuNotifierUnregister(state.device.sub!));
    },
    reader: ({ device }) => void device.read(),
  },
  check({ device, refused }) {
    if (device.nrStray !== 0) return 'M7: the driver was called when it was unregistered already';
    if (refused === device.sub!.released) return `N17: refused: ${refused}, released: ${device.sub!.released}`;
    return undefined;
  },
});

export const unregisterAndExit = model({
  name: 'unregistration, exit and a reader',
  setup: () => setup(),
  threads: [['unregister', 'exit']],
  invariant: ({ device }) => device.wrong,
  mutants: [
    noDead,
    {
      name: 'release runs as often as it is asked for',
      file: NOTIFIER,
      find: 'if (sub.released) return;',
      replace: '',
      fails: /^check: M8: /,
    },
    {
      name: 'exit releases nobody, and opens no bracket',
      edits: [
        { file: 'mm/exit.ts', find: 'mmuNotifierRelease(mm);', replace: '' },
        {
          file: 'mm/vma/mmap.ts',
          find: 'mmuNotifierInvalidateRangeStart(mm);',
          replace: 'mm.range.seal();',
        },
      ],
    },
  ],
  actors: {
    unregister: ({ device }) => mmuNotifierUnregister(device.sub!),
    exit: ({ mm }) => mm.exit(),
    reader: ({ device }) => void device.read(),
  },
  check({ host, device }) {
    if (device.nrReleases !== 1) return `M8: release ran ${device.nrReleases} times`;
    if (device.frame !== 0) return `M9: the device maps frame ${device.frame} of an mm that is gone`;
    checkHost(host);
    return undefined;
  },
});

/** kswapd's brackets do not block: a driver whose device is at work refuses, and one that heard the start hears the end. */
export const refusal = model({
  name: 'reclaim, a device that follows and one that refuses',
  setup() {
    const state = setup();
    return { ...state, refuser: new Device(state.mm, state.va, 'refuser', { refuses: true }) };
  },
  preemptions: 1,
  invariant: ({ device, refuser }) => device.wrong ?? refuser.wrong,
  mutants: [
    noSeq,
    noZap,
    {
      name: 'whoever heard the start hears no end when another refuses',
      file: BRACKETS,
      find: 'range.nrBegun = nrBegun; this.end(range);',
      replace: 'range.nrBegun = nrBegun; range.nrBegun = 0; this.close(range);',
    },
    {
      name: 'the refuser hears an end as well',
      file: BRACKETS,
      find: 'if (this.startOne(sub, range)) return this.refused(range, nrBegun);',
      replace: 'if (this.startOne(sub, range)) return this.refused(range, range.nrBegun);',
    },
    {
      name: 'reclaim goes on where a driver refused',
      file: 'mm/rmap/rmapbracket.ts',
      find: 'mm.refusedReclaim = mmuNotifierInvalidateRangeStart(mm, blockable) !== 0;',
      replace: 'mmuNotifierInvalidateRangeStart(mm, blockable);',
    },
  ],
  actors: {
    reclaim: ({ host }) => void host.reclaim.shrink(false, true, true),
    writer,
    refuser: ({ refuser }) => void refuser.read(),
  },
  check(state) {
    const { device, refuser } = state;
    if (device.inProgress !== 0) return 'M5: a start without an end: the device can never fault again';
    if (refuser.nrStray !== 0 || refuser.inProgress !== 0) return 'M5: the refuser heard an end without a start';
    return coherent(state) ?? refuser.wrong ?? nothingLost(state);
  },
});
