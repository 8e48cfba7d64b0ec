import { type Mutant, model } from 'unpin/explore';
import { setup as onePage, type State } from '../onepage.js';

/**
 * Who has used a page: reclaim, idle page tracking and smaps ask, while a device on a thread of its own uses it. A use is told or still marked; and who takes the
 * marks for himself tells the others (N14).
 */

const DEVICE = 'explore/externaldevice.ts';

/** All marks are taken: of what the device uses from `begun` on somebody must hear. */
function setup() {
  const state = { ...onePage(), pfn: 0, before: 0, after: 0, told: false };
  state.device.read();
  state.pfn = state.device.frame;
  state.host.young.testAndClear(state.pfn);
  return { ...state, begun: state.device.uses() };
}

type Aging = ReturnType<typeof setup>;

/** One that asks, and how many uses there were before and after. */
function asks(state: Aging, ask: (state: Aging) => boolean): void {
  state.before = state.device.uses();
  state.told = ask(state);
  state.after = state.device.uses();
}

const device = ({ device }: State) => {
  device.read();
  device.write(2);
};

const noLock: Mutant = {
  name: 'clearFlushYoung takes no lock: a device that has seen the mark is at its access still',
  file: DEVICE,
  find: `this.words.lock(LOCK);
    const entry = this.words.readOnce(ENTRY);
    if ((entry & YOUNG) !== 0) this.words.writeOnce(ENTRY, entry & ~YOUNG);
    this.words.unlock(LOCK);`,
  replace: `const entry = this.words.readOnce(ENTRY);
    if ((entry & YOUNG) !== 0) this.words.writeOnce(ENTRY, entry & ~YOUNG);`,
};

const noMark: Mutant = {
  name: 'a use leaves no mark',
  file: DEVICE,
  find: 'if ((entry & YOUNG) === 0) this.words.writeOnce(ENTRY, entry | YOUNG); return entry;',
  replace: 'return entry;',
};

export const young = model({
  name: 'aging and a device that uses its page',
  setup,
  mutants: [
    noLock,
    noMark,
    {
      name: 'the mark is taken and not told',
      file: 'mm/reclaim/young.ts',
      find: 'if (mmuNotifierClearFlushYoung(mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE)) this.young = true;',
      replace: 'mmuNotifierClearFlushYoung(mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE);',
    },
  ],
  actors: {
    age: (state) => asks(state, ({ host, pfn }) => host.young.testAndClear(pfn)),
    device,
  },
  check({ host, device, pfn, begun, before, after, told }) {
    if (before > begun && !told) return 'N14: a use before aging was not reported';
    if (device.uses() > after && !host.young.testAndClear(pfn)) return 'N14: a use after aging left no mark';
    return device.wrong;
  },
});

export const idle = model({
  name: 'idle page tracking and a device that uses its page',
  setup() {
    const state = setup();
    state.host.pageIdle.setIdle(state.pfn);
    return state;
  },
  mutants: [
    noLock,
    noMark,
    {
      name: 'the mark is taken and not told',
      file: 'mm/stat/pageidle.ts',
      find: 'if (mmuNotifierClearYoung(vma.mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE)) this.referenced = true;',
      replace: 'mmuNotifierClearYoung(vma.mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE);',
    },
    {
      name: 'reclaim is not told of the mark that was taken',
      file: 'mm/stat/pageidle.ts',
      find: 'flags[pfn] = (flags[pfn]! & ~PG_IDLE) | PG_YOUNG;',
      replace: 'flags[pfn] = flags[pfn]! & ~PG_IDLE;',
    },
  ],
  actors: {
    track: (state) => asks(state, ({ host, pfn }) => !host.pageIdle.testIdle(pfn)),
    device,
  },
  check({ host, device, pfn, begun, before, after, told }) {
    if (before > begun && !told) return 'N14: the page is idle, and was used since it was marked';
    if (device.uses() > after && host.pageIdle.testIdle(pfn)) return 'N14: a use after the question left no mark';
    if (!host.young.testAndClear(pfn)) return 'N14: idle page tracking has kept a use from reclaim';
    return device.wrong;
  },
});

export const look = model({
  name: 'smaps and a device that uses its page',
  setup,
  mutants: [
    noMark,
    {
      name: 'testYoung takes the mark',
      file: DEVICE,
      find: 'const entry = this.words.readOnce(ENTRY); this.words.unlock(LOCK);',
      replace:
        'const entry = this.words.readOnce(ENTRY); this.words.writeOnce(ENTRY, entry & ~YOUNG); this.words.unlock(LOCK);',
    },
    {
      name: 'external MMUs are not asked',
      file: 'mm/stat/smaps.ts',
      find: 'return mmuNotifierTestYoung(mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE);',
      replace: 'return false;',
    },
  ],
  actors: {
    look: (state) => asks(state, ({ mm }) => mm.smapsRollup().Referenced > 0),
    device,
  },
  check({ host, device, pfn, begun, before, told }) {
    if (before > begun && !told) return 'N14: a use is not in smaps';
    if (!host.young.testAndClear(pfn)) return 'N14: who only looked has taken the mark';
    return device.wrong;
  },
});
