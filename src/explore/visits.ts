/** Where the search has been: for each state the fewest preemptions, and which actors were at work then. */
export class Visits {
  private readonly levels = new Map<number, number>();

  get size(): number {
    return this.levels.size;
  }

  /**
   * False when all futures are known. With `level` below, any switch that would cost a preemption now was within reach; at the same level
   * the same actor at work, or none, can go on in the same ways.
   */
  enter(key: number, holder: number, level: number): boolean {
    const before = this.levels.get(key);
    const bit = bitOf(holder);
    if (before === undefined) {
      this.levels.set(key, level * LEVEL + bit);
      return true;
    }
    if (Math.floor(before / LEVEL) < level || (before & (bit | NOBODY)) !== 0) return false;
    this.levels.set(key, before + bit);
    return true;
  }

  /** Whether `enter` would be false after the choice of `who`. Key 0: not known. */
  isKnown(key: number, who: number, level: number): boolean {
    const before = key === 0 ? undefined : this.levels.get(key);
    if (before === undefined) return false;
    return Math.floor(before / LEVEL) < level || (before & (bitOf(who) | NOBODY)) !== 0;
  }
}

const LEVEL = 2 ** 27;
const NOBODY = 2 ** 26;

function bitOf(holder: number): number {
  return holder < 0 || holder >= 26 ? NOBODY : 1 << holder;
}
