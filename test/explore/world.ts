import type { Mm } from 'unpin/mm';

/** What models with guests, and those of mm, have in common. */

/** A place in which no time goes by, and timers never come. */
export const ENV = {
  nowMs: () => 0,
  defer: (fn: () => void) => void setImmediate(fn),
  setTimer: () => () => {},
};

/** The byte at `va`, by the mm itself. */
export function byteAt(mm: Mm, va: number): number {
  const byte = new Uint8Array(1);
  mm.readSync(va, byte);
  return byte[0]!;
}
