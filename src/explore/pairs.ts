/**
 * Numbers for pairs of numbers: the same pair gets the same number, another pair another one. Nested pairs number whole
 * trees, without any chance of two trees sharing a number, as a hash would have (hash-consing).
 */
export class PairTable {
  private first = new Int32Array(1 << 12);
  private second = new Int32Array(1 << 12);
  private ids = new Int32Array(1 << 12);
  private nextId: number;
  private used = 0;

  /** Numbers below `firstId` are the caller's. */
  constructor(firstId: number) {
    this.nextId = firstId;
  }

  pair(a: number, b: number): number {
    const { ids, first, second } = this;
    const mask = ids.length - 1;
    for (let i = slotOf(a, b) & mask; ; i = (i + 1) & mask) {
      if (ids[i] === 0) return this.insert(i, a, b);
      if (first[i] === a && second[i] === b) return ids[i]!;
    }
  }

  private insert(i: number, a: number, b: number): number {
    const id = this.nextId++;
    this.first[i] = a;
    this.second[i] = b;
    this.ids[i] = id;
    if (++this.used * 2 > this.ids.length) this.grow();
    return id;
  }

  private grow(): void {
    const { first, second, ids } = this;
    const length = ids.length * 2;
    this.first = new Int32Array(length);
    this.second = new Int32Array(length);
    this.ids = new Int32Array(length);
    for (let old = 0; old < ids.length; old++) {
      if (ids[old] === 0) continue;
      let i = slotOf(first[old]!, second[old]!) & (length - 1);
      while (this.ids[i] !== 0) i = (i + 1) & (length - 1);
      this.first[i] = first[old]!;
      this.second[i] = second[old]!;
      this.ids[i] = ids[old]!;
    }
  }
}

function slotOf(a: number, b: number): number {
  const mixed = Math.imul(a, 0x9e3779b1) ^ Math.imul(b + 0x7f4a7c15, 0x85ebca77);
  return mixed ^ (mixed >>> 15);
}
