import { model } from 'unpin/explore';
import { TICKS_PER_MS, VmClock } from 'unpin/kvm';
import { Words } from 'unpin/mm';

/**
 * The guest's clock (kvm/clock.ts): vCPUs that read it, on threads of their own, while others begin to wait, and are idle. Each look at the
 * environment's clock is a millisecond later than the one before.
 */

const CLOCK = 'kvm/clock.ts';
const NOW = 0;
const SEEN = 1;

function setup(nrActive: number) {
  const memory = { buffer: new SharedArrayBuffer(64) };
  const words = new Words({ buffer: new SharedArrayBuffer(8) }, 0, 2, { word: (i) => ['environment', 'seen'][i]! });
  const view = () => new VmClock(memory, 0, () => words.fetchAdd(NOW, 1), 0);
  const clock = view();
  for (let n = 0; n < nrActive; n++) clock.enter();
  return { words, view, wrong: undefined as string | undefined };
}

type State = ReturnType<typeof setup>;

/** Reads it after another may have: what that one saw is not later. */
function read(state: State): void {
  const seen = state.words.load(SEEN);
  const ms = state.view().now() / TICKS_PER_MS;
  if (ms < seen) state.wrong = `the clock goes back from ${seen} to ${ms}`;
  state.words.store(SEEN, ms);
}

const unchecked = {
  name: 'a reader does not look whether the clock was changed',
  file: CLOCK,
  find: 'if (words.load(SEQ) === seq) return ticks;',
  replace: 'return ticks;',
};
const early = {
  name: 'the time at which it stands is read before readers are warned',
  edits: [
    {
      file: CLOCK,
      find: 'const seq = this.beginChange();',
      replace: 'const ticks = this.envTicks(); const seq = this.beginChange();',
    },
    {
      file: CLOCK,
      find: 'const value = this.envTicks() - this.loadValue();',
      replace: 'const value = ticks - this.loadValue();',
    },
  ],
};

export const standing = model({
  name: 'the clock: a vCPU that waits alone, and readers',
  setup: () => setup(1),
  preemptions: 2,
  mutants: [unchecked, early],
  actors: {
    waiter(state) {
      const clock = state.view();
      clock.waitBegins();
      const [first, second] = [clock.now(), clock.now()];
      if (first !== second) state.wrong = 'time goes by while the only vCPU waits';
      clock.waitEnds();
    },
    first: read,
    second: read,
  },
  check: ({ wrong }) => wrong,
});

export const idling = model({
  name: 'the clock: one waits, one is idle, one reads',
  setup: () => setup(2),
  preemptions: 2,
  mutants: [
    {
      name: 'two change it at once',
      file: CLOCK,
      find: 'if (words.compareExchange(SEQ, seq, seq | CHANGING) === seq) return seq;',
      replace: 'words.store(SEQ, seq | CHANGING); return seq;',
    },
  ],
  actors: {
    waiter(state) {
      const clock = state.view();
      clock.waitBegins();
      clock.waitEnds();
    },
    idler(state) {
      const clock = state.view();
      clock.leave();
      clock.enter();
    },
    reader(state) {
      read(state);
      read(state);
    },
  },
  check(state) {
    if (state.wrong !== undefined) return state.wrong;
    const clock = state.view();
    if (clock.stands) return 'the clock stands, and nobody waits';
    // As it was at first: it stands when both wait, and not before.
    clock.waitBegins();
    if (clock.stands) return 'the clock stands while one of two computes';
    clock.waitBegins();
    return clock.stands ? undefined : 'the clock does not stand while both wait';
  },
});
