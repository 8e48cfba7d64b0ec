import type { Words } from '../../base/index.js';
import { REGION_WORDS, Region } from './region.js';

/**
 * The regions of a device by key. The low bits of a key are its region's place in the table, all others are random, and so is the place: who has not been
 * told a key guesses one with a chance of regions / 2^32.
 */
export class RegionTable {
  readonly nrSlots: number;
  private readonly words: Words;
  private readonly address: number;
  private readonly regions: (Region | undefined)[] = [];

  /** `address` of `nrSlots` (a power of two) times REGION_WORDS words, zero at first; `words` are those of the whole memory. */
  constructor(words: Words, address: number, nrSlots: number) {
    this.words = words;
    this.address = address;
    this.nrSlots = nrSlots;
  }

  /** The region in place `slot`, whether a key names it or not. */
  at(slot: number): Region {
    return (this.regions[slot] ??= new Region(this.words, this.address + slot * REGION_WORDS * 4));
  }

  /** The region that `key` names, or undefined. Inside a copy of the NIC it stays until that is over. */
  find(key: number): Region | undefined {
    const region = this.at(key & (this.nrSlots - 1));
    return key !== 0 && region.key() === key >>> 0 ? region : undefined;
  }
}

/** Pages of a child of an implicit region: 2 MiB. */
export const CHILD_PAGES = 512;
/** Words of each of the two levels of an implicit region's directory. */
export const DIRECTORY_WORDS = 512;

/** Index of the word, in the directory of an implicit region at `table`, that has the address of the child with page `vpn`; 0: no such table yet. */
export function childWord(words: Words, table: number, vpn: number): number {
  const middle = words.load(table + (vpn >>> 18));
  return middle === 0 ? 0 : middle + ((vpn >>> 9) & (DIRECTORY_WORDS - 1));
}
