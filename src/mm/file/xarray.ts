/**
 * A sparse array from page indices to int32 values, with marks (Linux: xarray.h). The index of a page cache: a value above 0 is a pfn, one
 * below 0 a swap slot or a shadow of what was evicted, 0 is nothing.
 *
 * Chunks of 512 values hang in a tree of fan-out 512; each node knows which of its children carry a mark, so that the first dirty page of a
 * large clean file is found in O(height). A value that becomes 0 loses its marks, and a chunk without values goes away.
 *
 * Use: `get`, `set`; `setMark` and `clearMark` on what is there; `next` and `nextMarked` walk in order of the indices. Lookups and marks allocate
 * nothing; `set` allocates the chunks.
 */

export const XA_MARK_DIRTY = 0;
export const XA_MARK_WRITEBACK = 1;
const NR_MARKS = 2;
export type XaMark = typeof XA_MARK_DIRTY | typeof XA_MARK_WRITEBACK;

/** Indices are below this: they fit an int32. */
export const XA_MAX_INDEX = 2 ** 31;

const CHUNK_SHIFT = 9;
const CHUNK_SLOTS = 1 << CHUNK_SHIFT;
const CHUNK_MASK = CHUNK_SLOTS - 1;
const MARK_WORDS = CHUNK_SLOTS / 32;

class XaNode {
  /** Bits of the index below this node's slots; 0 for a chunk of values. */
  readonly shift: number;
  /** A chunk's values. */
  readonly values: Int32Array;
  /** An upper node's children. */
  readonly children: (XaNode | undefined)[];
  /** Values or children that are there. */
  count = 0;
  private readonly marks = new Uint32Array(NR_MARKS * MARK_WORDS);
  private readonly nrMarked = new Uint16Array(NR_MARKS);

  constructor(shift: number) {
    this.shift = shift;
    this.values = shift === 0 ? new Int32Array(CHUNK_SLOTS) : NO_VALUES;
    this.children = shift === 0 ? NO_CHILDREN : new Array<XaNode | undefined>(CHUNK_SLOTS).fill(undefined);
  }

  slotOf(index: number): number {
    return (index >>> this.shift) & CHUNK_MASK;
  }

  isMarked(slot: number, mark: number): boolean {
    return ((this.marks[mark * MARK_WORDS + (slot >>> 5)]! >>> (slot & 31)) & 1) !== 0;
  }

  anyMarked(mark: number): boolean {
    return this.nrMarked[mark] !== 0;
  }

  /** True when the mark was not there. */
  setMark(slot: number, mark: number): boolean {
    if (this.isMarked(slot, mark)) return false;
    this.marks[mark * MARK_WORDS + (slot >>> 5)]! |= 1 << (slot & 31);
    this.nrMarked[mark]!++;
    return true;
  }

  /** True when the mark was there. */
  clearMark(slot: number, mark: number): boolean {
    if (!this.isMarked(slot, mark)) return false;
    this.marks[mark * MARK_WORDS + (slot >>> 5)]! &= ~(1 << (slot & 31));
    this.nrMarked[mark]!--;
    return true;
  }

  /** First slot from `slot` on that carries the mark, or -1. */
  nextMarkedSlot(slot: number, mark: number): number {
    if (slot >= CHUNK_SLOTS || this.nrMarked[mark] === 0) return -1;
    const base = mark * MARK_WORDS;
    let word = this.marks[base + (slot >>> 5)]! & (-1 << (slot & 31));
    for (let w = slot >>> 5; ; word = this.marks[base + w]!) {
      if (word !== 0) return w * 32 + 31 - Math.clz32(word & -word);
      if (++w === MARK_WORDS) return -1;
    }
  }

  /** First slot from `slot` on with a value or child, or -1. */
  nextUsedSlot(slot: number): number {
    const { values, children, shift } = this;
    for (; slot < CHUNK_SLOTS; slot++) {
      if (shift === 0 ? values[slot] !== 0 : children[slot] !== undefined) return slot;
    }
    return -1;
  }
}

const NO_VALUES = new Int32Array(0);
const NO_CHILDREN: (XaNode | undefined)[] = [];
const ANY = -1;

export class XArray {
  private root: XaNode | undefined;
  /** The chunk that was looked up last, and its number. */
  private lastChunk: XaNode | undefined;
  private lastNr = -1;
  private nr = 0;
  private readonly nrMarks = [0, 0];

  /** Values that are not 0. */
  get size(): number {
    return this.nr;
  }

  nrMarked(mark: XaMark): number {
    return this.nrMarks[mark]!;
  }

  get(index: number): number {
    const chunk = this.chunkOf(index);
    return chunk === undefined ? 0 : chunk.values[index & CHUNK_MASK]!;
  }

  private chunkOf(index: number): XaNode | undefined {
    if (index >>> CHUNK_SHIFT === this.lastNr) return this.lastChunk;
    let node = this.root;
    if (node === undefined || !spans(node, index)) return undefined;
    while (node !== undefined && node.shift !== 0) node = node.children[node.slotOf(index)];
    if (node === undefined) return undefined;
    this.lastChunk = node;
    this.lastNr = index >>> CHUNK_SHIFT;
    return node;
  }

  /** Returns the old value. */
  set(index: number, value: number): number {
    if (value === 0) return this.erase(index);
    const chunk = this.chunkOf(index) ?? this.makeChunk(index);
    const slot = index & CHUNK_MASK;
    const old = chunk.values[slot]!;
    chunk.values[slot] = value;
    if (old === 0) {
      chunk.count++;
      this.nr++;
    }
    return old;
  }

  private makeChunk(index: number): XaNode {
    let node = this.rootFor(index);
    while (node.shift !== 0) {
      const slot = node.slotOf(index);
      let child = node.children[slot];
      if (child === undefined) {
        child = node.children[slot] = new XaNode(node.shift - CHUNK_SHIFT);
        node.count++;
      }
      node = child;
    }
    return node;
  }

  /** The root, raised until it spans the index. */
  private rootFor(index: number): XaNode {
    let shift = 0;
    while (index >= 2 ** (shift + CHUNK_SHIFT)) shift += CHUNK_SHIFT;
    let root = this.root ?? new XaNode(shift);
    while (root.shift < shift) root = raise(root);
    this.root = root;
    return root;
  }

  private erase(index: number): number {
    const old = this.get(index);
    if (old === 0) return 0;
    for (let mark = 0; mark < NR_MARKS; mark++) this.clearMark(index, mark as XaMark);
    this.nr--;
    if (this.eraseBelow(this.root!, index)) {
      this.root = undefined;
      this.lastNr = -1;
    }
    return old;
  }

  /** True when the node is empty now. */
  private eraseBelow(node: XaNode, index: number): boolean {
    const slot = node.slotOf(index);
    if (node.shift === 0) node.values[slot] = 0;
    else {
      if (!this.eraseBelow(node.children[slot]!, index)) return false;
      node.children[slot] = undefined;
      this.lastNr = -1;
    }
    return --node.count === 0;
  }

  isMarked(index: number, mark: XaMark): boolean {
    return this.chunkOf(index)?.isMarked(index & CHUNK_MASK, mark) ?? false;
  }

  /** Marks a value that is there; true when it was not marked. */
  setMark(index: number, mark: XaMark): boolean {
    const chunk = this.chunkOf(index);
    if (chunk === undefined || !chunk.setMark(index & CHUNK_MASK, mark)) return false;
    this.nrMarks[mark]!++;
    for (let node = this.root!; node.shift !== 0; node = node.children[node.slotOf(index)]!) {
      node.setMark(node.slotOf(index), mark);
    }
    return true;
  }

  /** True when it was marked. */
  clearMark(index: number, mark: XaMark): boolean {
    if (!this.isMarked(index, mark)) return false;
    this.nrMarks[mark]!--;
    this.clearBelow(this.root!, index, mark);
    return true;
  }

  private clearBelow(node: XaNode, index: number, mark: XaMark): void {
    const slot = node.slotOf(index);
    if (node.shift !== 0) {
      const child = node.children[slot]!;
      this.clearBelow(child, index, mark);
      if (child.anyMarked(mark)) return;
    }
    node.clearMark(slot, mark);
  }

  /** The first index of [index, end) with a value, or -1. */
  next(index: number, end: number = XA_MAX_INDEX): number {
    return this.seek(index, end, ANY);
  }

  /** The first index of [index, end) that carries the mark, or -1. */
  nextMarked(index: number, end: number, mark: XaMark): number {
    return this.nrMarks[mark] === 0 ? -1 : this.seek(index, end, mark);
  }

  private seek(index: number, end: number, mark: number): number {
    if (this.root === undefined || index >= end || !spans(this.root, index)) return -1;
    const found = seekBelow(this.root, index, 0, mark);
    return found < end ? found : -1;
  }
}

/** Whether the node, at the left edge of the tree, reaches as far as the index. */
function spans(node: XaNode, index: number): boolean {
  return index < 2 ** (node.shift + CHUNK_SHIFT);
}

/** A node above, with the old root as its first child. */
function raise(root: XaNode): XaNode {
  const above = new XaNode(root.shift + CHUNK_SHIFT);
  above.children[0] = root;
  above.count = 1;
  for (let mark = 0; mark < NR_MARKS; mark++) if (root.anyMarked(mark)) above.setMark(0, mark);
  return above;
}

/** The first index at or after `index` below the node, whose first index is `base`; -1 when there is none. */
function seekBelow(node: XaNode, index: number, base: number, mark: number): number {
  let slot = index <= base ? 0 : node.slotOf(index);
  for (;;) {
    slot = mark === ANY ? node.nextUsedSlot(slot) : node.nextMarkedSlot(slot, mark);
    if (slot < 0) return -1;
    const start = base + slot * 2 ** node.shift;
    const found = node.shift === 0 ? start : seekBelow(node.children[slot]!, index, start, mark);
    if (found >= 0) return found;
    slot++;
  }
}
