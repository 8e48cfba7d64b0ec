/** The translation algorithm of Sv39 (privileged manual, section 12.3.2), step by step, in big integers. */

export interface WalkMemory {
  /** The 8 bytes at a physical address; undefined: nothing is there. */
  read(address: bigint): bigint | undefined;
  write(address: bigint, pte: bigint): void;
  readonly root: number;
}

export interface WalkAccess {
  readonly access: 'read' | 'write' | 'exec';
  readonly user: boolean;
  readonly sum: boolean;
  readonly mxr: boolean;
}

const bit = (pte: bigint, n: number): boolean => ((pte >> BigInt(n)) & 1n) === 1n;

/** The physical address, or the fault. */
export function referenceWalk(m: WalkMemory, va: bigint, a: WalkAccess): number | 'page fault' | 'access fault' {
  if (BigInt.asIntN(39, va) !== BigInt.asIntN(64, va)) return 'page fault';
  let table = BigInt(m.root);
  for (let i = 2; i >= 0; i--) {
    const address = table + 8n * ((va >> BigInt(12 + 9 * i)) & 511n);
    const pte = m.read(address);
    if (pte === undefined) return 'access fault';
    const [v, r, w, x, u] = [0, 1, 2, 3, 4].map((n) => bit(pte, n)) as [boolean, boolean, boolean, boolean, boolean];
    if (!v || (!r && w) || pte >> 54n !== 0n) return 'page fault';
    const ppn = (pte >> 10n) & ((1n << 44n) - 1n);
    if (!r && !x) {
      // A pointer to the next table: D, A and U are reserved.
      if (bit(pte, 4) || bit(pte, 6) || bit(pte, 7)) return 'page fault';
      table = ppn << 12n;
      continue;
    }
    if (a.user ? !u : u && (a.access === 'exec' || !a.sum)) return 'page fault';
    const allowed = { read: r || (a.mxr && x), write: w, exec: x };
    if (!allowed[a.access]) return 'page fault';
    const low = (1n << BigInt(9 * i)) - 1n;
    if ((ppn & low) !== 0n) return 'page fault';
    const set = pte | (1n << 6n) | (a.access === 'write' ? 1n << 7n : 0n);
    m.write(address, set);
    return Number(((ppn | ((va >> 12n) & low)) << 12n) | (va & 4095n));
  }
  return 'page fault';
}
