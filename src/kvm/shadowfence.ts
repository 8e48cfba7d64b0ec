import {
  NR_ASID_FENCES,
  NR_LOGGED,
  PAGE_FENCED,
  PAGE_ROLE,
  PAGE_SEEN,
  POOL_ASID_FENCES,
  POOL_FENCE_ALL,
  POOL_GENERATION,
  POOL_LOG,
  POOL_LOG_HEAD,
  roleAsid,
  type ShadowPool,
} from './shadowpool.js';

/**
 * What the guest's fences (sfence.vma) demand of shadow pages. A fence itself changes nothing but a number or two; the next
 * look-up does what it asked for, as far as it comes by.
 *
 * A generation is counted up by each fence. A fence of everything notes it for all, one of an ASID for that ASID (the low
 * bits of it: what hits another one too is more than was asked, which is always right). Pages on the way of a look-up that
 * were last compared with the guest's ptes in an earlier generation are compared first.
 *
 * A fence of one address is written to a log of the last 64. Each root follows it by itself, when it is looked up: the
 * entries on the way to the address are compared. One that has fallen too far behind compares all instead.
 *
 * All is in shared words; the caller holds the VM's mmu lock.
 */
export class ShadowFences {
  private readonly pool: ShadowPool;

  constructor(pool: ShadowPool) {
    this.pool = pool;
  }

  /** sfence.vma: undefined stands for all. */
  fence(vpn: number | undefined, asid: number | undefined): void {
    const { words } = this.pool;
    const generation = this.pool.nextGeneration();
    if (vpn !== undefined) this.log(vpn, asid ?? -1);
    else if (asid === undefined) words.writeOnce(POOL_FENCE_ALL, generation);
    else words.writeOnce(POOL_ASID_FENCES + (asid & (NR_ASID_FENCES - 1)), generation);
  }

  private log(vpn: number, asid: number): void {
    const { words } = this.pool;
    const head = words.readOnce(POOL_LOG_HEAD);
    const at = POOL_LOG + 2 * (head & (NR_LOGGED - 1));
    words.writeOnce(at, vpn);
    words.writeOnce(at + 1, asid);
    words.writeOnce(POOL_LOG_HEAD, (head + 1) | 0);
  }

  /** Generation in which the root, and what is below it, must have been compared at least. */
  needed(root: number): number {
    const { pool } = this;
    const asid = roleAsid(pool.get(root, PAGE_ROLE));
    const ofAsid = pool.words.readOnce(POOL_ASID_FENCES + (asid & (NR_ASID_FENCES - 1)));
    return Math.max(pool.get(root, PAGE_FENCED), ofAsid, pool.words.readOnce(POOL_FENCE_ALL));
  }

  isBehind(root: number): boolean {
    return this.pool.get(root, PAGE_SEEN) !== this.pool.words.readOnce(POOL_LOG_HEAD);
  }

  /** Calls `compare` for each address whose fence the root has not seen, and concerns it. */
  catchUp(root: number, compare: (root: number, vpn: number) => void): void {
    const { pool } = this;
    const head = pool.words.readOnce(POOL_LOG_HEAD);
    let seen = pool.get(root, PAGE_SEEN);
    pool.set(root, PAGE_SEEN, head);
    if (((head - seen) | 0) > NR_LOGGED) {
      pool.set(root, PAGE_FENCED, pool.generation);
      return;
    }
    const ownAsid = roleAsid(pool.get(root, PAGE_ROLE));
    for (; seen !== head; seen = (seen + 1) | 0) {
      const at = POOL_LOG + 2 * (seen & (NR_LOGGED - 1));
      const asid = pool.words.readOnce(at + 1);
      if (asid < 0 || asid === ownAsid) compare(root, pool.words.readOnce(at));
    }
  }

  /** Begins the count anew, when nothing is left that was compared. */
  reset(): void {
    const { words } = this.pool;
    words.writeOnce(POOL_GENERATION, 1);
    words.writeOnce(POOL_FENCE_ALL, 0);
    for (let i = 0; i < NR_ASID_FENCES; i++) words.writeOnce(POOL_ASID_FENCES + i, 0);
  }
}
