/**
 * What the mm thread and one other thread have in common (both halves of this folder stand on it): the words of an area, and the arms of an mm.
 *
 * An area has a ring of frames. Positions only grow, modulo 2^32; position p is slot p & (capacity - 1):
 *
 *   drained .. HEAD    used: slot vpn says where. The mm thread accounts for them (`drain`)
 *   HEAD               perhaps in use right now: slot vpn is not 0
 *   HEAD .. FILLED     zeroed and mapped by the other thread when it needs them
 *
 * The slots are the log as well: nothing else is needed to tell the mm thread what was mapped.
 *
 * HEAD, and the vpns of positions that are not drained, are the other thread's to write; all else is the mm thread's, which sets a vpn back to 0 when it
 * has drained it.
 */

/** Of the page table's root in the pool's words; 0: the mm is gone. */
export const AREA_ROOT = 0;
export const AREA_FILLED = 1;
export const AREA_HEAD = 2;
const AREA_HEADER = 4;

export const areaWords = (capacity: number): number => AREA_HEADER + 2 * capacity;
/** Word of the frame at `position`, and of the page that it was mapped at. */
export const slotPfn = (position: number, capacity: number): number => AREA_HEADER + (position & (capacity - 1));
export const slotVpn = (position: number, capacity: number): number => slotPfn(position, capacity) + capacity;

export function areaLabel(i: number, capacity: number): string {
  if (i < AREA_HEADER) return ['root', 'filled', 'head', 'unused'][i]!;
  const slot = (i - AREA_HEADER) % capacity;
  return i < AREA_HEADER + capacity ? `slot ${slot} frame` : `slot ${slot} page`;
}

/**
 * The arm of a leaf table: pages of it that are plain memory, where an absent pte means zeros. One word for each table of the pool, in an array of each
 * mm, so that one load says all: which 2 MiB of the mm the table maps (18 bits), and which run of it is armed, in groups of four
 * pages (first and last group, 7 bits each). 0: none; that is what the armed first group of address 0 would be, where nothing is ever mapped.
 */
const GROUP_SHIFT = 2;

/** The arm for [start, end) of the pages of one leaf table, or 0 when no group of four lies in it. */
export function mkArm(start: number, end: number): number {
  const first = ((start & 511) + 3) >>> GROUP_SHIFT;
  const last = ((((end - 1) & 511) + 1) >>> GROUP_SHIFT) - 1;
  return first > last ? 0 : ((start >>> 9) << 14) | (first << 7) | last;
}

/** Whether an absent pte of `vpn`, in the table that has the arm, means zeros. */
export function armCovers(arm: number, vpn: number): boolean {
  const group = (vpn & 511) >>> GROUP_SHIFT;
  return arm >>> 14 === vpn >>> 9 && group >= ((arm >>> 7) & 127) && group <= (arm & 127);
}

export const armStart = (arm: number): number => ((arm >>> 14) << 9) + (((arm >>> 7) & 127) << GROUP_SHIFT);
export const armEnd = (arm: number): number => ((arm >>> 14) << 9) + (((arm & 127) + 1) << GROUP_SHIFT);

/** All that a thread needs beside the memory: plain numbers, to be sent to it. Addresses are bytes of the memory. */
export interface RemoteDescriptor {
  readonly areaAddr: number;
  /** Frames that the ring can hold, a power of two. */
  readonly capacity: number;
  readonly armsAddr: number;
  readonly tablesAddr: number;
  readonly nrTables: number;
}
