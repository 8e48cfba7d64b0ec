/**
 * The reverse map: for each page of guest memory the chain of shadow entries that show it. What lguest lacked, and had to pin its guests for: with it a
 * notifier takes single entries.
 *
 * An entry is in one chain at most. Heads and links hold entry index + 1, so that 0 ends a chain. All of it is the mm thread's.
 */
export class Rmap {
  private readonly heads: Int32Array;
  private readonly next: Int32Array;
  private readonly prev: Int32Array;
  /** Guest page of each entry in a chain. */
  private readonly gfns: Int32Array;

  constructor(nrGfns: number, nrEntries: number) {
    this.heads = new Int32Array(nrGfns);
    this.next = new Int32Array(nrEntries);
    this.prev = new Int32Array(nrEntries);
    this.gfns = new Int32Array(nrEntries);
  }

  add(index: number, gfn: number): void {
    const head = this.heads[gfn]!;
    this.gfns[index] = gfn;
    this.next[index] = head;
    this.prev[index] = 0;
    if (head !== 0) this.prev[head - 1] = index + 1;
    this.heads[gfn] = index + 1;
  }

  remove(index: number): void {
    const next = this.next[index]!;
    const prev = this.prev[index]!;
    if (next !== 0) this.prev[next - 1] = prev;
    if (prev !== 0) this.next[prev - 1] = next;
    else this.heads[this.gfns[index]!] = next;
  }

  /** Index of the first entry that shows `gfn`, or -1. */
  first(gfn: number): number {
    return this.heads[gfn]! - 1;
  }

  /** Index of the entry after `index` in its chain, or -1. */
  after(index: number): number {
    return this.next[index]! - 1;
  }

  gfn(index: number): number {
    return this.gfns[index]!;
  }
}
