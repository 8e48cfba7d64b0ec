import { model } from 'unpin/explore';
import { checkHost } from 'unpin/mm';
import { coherent, invariant, nothingLost, setup as onePage, type State, writer } from '../onepage.js';
import { byteAt } from '../world.js';

/** A page of zeros is reclaimed, which takes no slot of the swap device, beside a device that may write to it. */

function setup(): State {
  const state = onePage({ sameFilled: true });
  state.mm.writeSync(state.va, new Uint8Array([0]));
  return state;
}

export const reclaimOfZeros = model({
  name: 'reclaim of a page of zeros and a writer',
  setup,
  invariant,
  mutants: [
    {
      name: 'the page is not looked at again when nobody can write to it any more',
      file: 'mm/reclaim/shrinkpass.ts',
      find: 'if (!stays && host.sameFilled.numberOf(pfn) === number) {',
      replace: 'if (!stays) {',
      fails: /^check: N15: /,
    },
  ],
  actors: {
    reclaim({ host }) {
      host.reclaim.shrink(true, true, true);
      host.reclaim.shrink(true, true, true);
    },
    writer(state) {
      // It has the page in its table before.
      state.device.read();
      writer(state);
    },
  },
  check(state) {
    checkHost(state.host);
    const expected = state.wrote ? 2 : 0;
    const value = byteAt(state.mm, state.va);
    if (value !== expected) return `N15: the device wrote ${expected}, the page holds ${value}`;
    return coherent(state) ?? (state.wrote ? nothingLost(state) : undefined);
  },
});
