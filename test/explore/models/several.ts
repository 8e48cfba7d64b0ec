import { type Mutant, model } from 'unpin/explore';
import { PROT_READ } from 'unpin/mm';
import { Device } from '../externaldevice.js';
import { lateSeq, noBracketOfRanges, noCount, noSeq, noZap } from '../externalmutants.js';
import { coherent, invariant, migrate, nothingLost, type State, setup, shrink, writer } from '../onepage.js';
import { byteAt } from '../world.js';

/** Several of a kind at once: operations of mm one after the other, and up to three devices on one page. */

/** M23: what one operation leaves behind the other finds; both are done at once, for nothing waits within them. */
export const migrateMprotectAndWriter = model({
  name: 'migration, mprotect and a writer',
  setup,
  invariant,
  threads: [['migrate', 'mprotect']],
  mutants: [
    noSeq,
    noZap,
    {
      name: 'a page comes out of migration with all rights',
      file: 'mm/rmap/migrate.ts',
      find: 'migrationToPte(pte, this.to)',
      replace: 'migrationToPte(pte, this.to) | 2',
    },
  ],
  actors: {
    migrate,
    mprotect(state) {
      state.mm.mprotect(state.va, 4096, PROT_READ);
      state.seen = byteAt(state.mm, state.va);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.mm, state.va);
    if (now !== state.seen) return `M26: ${state.seen} when it was read-only already, ${now} later`;
    return coherent(state) ?? nothingLost(state);
  },
});

/** Two devices on one page, each on a thread of its own, against one operation. */
function withTwo(name: string, operation: (state: State) => void, mutants: readonly Mutant[]) {
  return model({
    name,
    setup: () => {
      const state = setup();
      return { ...state, other: new Device(state.mm, state.va, 'other') };
    },
    invariant: ({ device, other }) => device.wrong ?? other.wrong,
    preemptions: 1,
    mutants,
    actors: { operation, writer, other: ({ other }) => void other.read() },
    check: (state) => coherent(state) ?? state.other.wrong ?? nothingLost(state),
  });
}

export const reclaimAndTwo = withTwo('reclaim, a writer and a reader', shrink, [noSeq, noZap, noCount]);
export const forkAndTwo = withTwo('fork, a writer and a reader', ({ mm }) => void mm.fork(), [noSeq, noZap]);
export const migrateAndTwo = withTwo('migration, a writer and a reader', migrate, [noSeq, lateSeq, noZap, noCount]);
export const mprotectAndTwo = withTwo(
  'mprotect, a writer and a reader',
  ({ mm, va }) => mm.mprotect(va, 4096, PROT_READ),
  [noSeq, noZap],
);

export const munmapAndThree = model({
  name: 'munmap and three readers',
  setup() {
    const state = setup();
    const { mm, va } = state;
    return { ...state, others: [new Device(mm, va, 'second'), new Device(mm, va, 'third')] as const };
  },
  invariant: ({ device, others: [second, third] }) => device.wrong ?? second.wrong ?? third.wrong,
  preemptions: 1,
  mutants: [noSeq, noZap, noBracketOfRanges('vma/mmap.ts')],
  actors: {
    munmap: ({ mm, va }) => mm.munmap(va, 4096),
    first: ({ device }) => void device.read(),
    second: ({ others }) => void others[0].read(),
    third: ({ others }) => void others[1].read(),
  },
  check: (state) => coherent(state),
});
