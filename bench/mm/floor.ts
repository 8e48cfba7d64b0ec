import type { Host } from '../../src/mm/index.js';
import type { FloorName } from './rows.js';
import { PAGE, timed } from './world.js';

/** The machine's floor for one page: what remains when everything but the page itself is left out. Nanoseconds for all frames given. */
export const FLOORS: Record<FloorName, (host: Host, nrPages: number) => number> = {
  /** memory.fill of a frame, each another. */
  zero: (host, nr) => {
    const first = host.frames.firstPfn;
    return timed(() => {
      for (let k = 0; k < nr; k++) host.pageOps.zero((first + k) * PAGE);
    });
  },
  /** memory.copy of a frame. */
  copy: (host, nr) => {
    const first = host.frames.firstPfn;
    return timed(() => {
      for (let k = 1; k <= nr; k++) host.pageOps.copy((first + k) * PAGE, first * PAGE);
    });
  },
  /** A store to a typed array over the shared memory. */
  store: (host, nr) => {
    const words = new Int32Array(host.memory.buffer, host.framesBase, nr);
    return timed(() => {
      for (let k = 0; k < nr; k++) words[k] = k;
    });
  },
};
