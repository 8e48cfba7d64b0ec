import type { Trace } from './trace.js';

/**
 * What the textbooks' policies would miss on a trace, in a memory of `nrFrames`: references to pages that were in memory before and are
 * not now. First references are not counted: the memory starts out empty, and such a page is zeros.
 */
export type Policy = (trace: Trace, nrFrames: number) => number;

/** Belady's optimum (MIN, 1966): gives up the page whose next use is farthest away. No policy misses less. */
export function optimum(trace: Trace, nrFrames: number): number {
  const { refs, nrPages } = trace;
  const nextUse = nextUses(trace);
  const dueAt = new Int32Array(nrPages).fill(-1);
  const seen = new Uint8Array(nrPages);
  const heap = new Heap();
  let resident = 0;
  let misses = 0;
  for (let k = 0; k < refs.length; k++) {
    const page = refs[k]! >> 1;
    if (dueAt[page]! < 0) {
      if (seen[page] === 1) misses++;
      seen[page] = 1;
      if (resident === nrFrames) {
        let [due, victim] = heap.pop();
        while (dueAt[victim] !== due) [due, victim] = heap.pop();
        dueAt[victim] = -1;
      } else resident++;
    }
    dueAt[page] = nextUse[k]!;
    heap.push(nextUse[k]!, page);
  }
  return misses;
}

/** For each reference the index of the next one to its page; of the last, one past the end. */
function nextUses({ refs, nrPages }: Trace): Int32Array {
  const next = new Int32Array(refs.length);
  const upcoming = new Int32Array(nrPages).fill(refs.length);
  for (let k = refs.length - 1; k >= 0; k--) {
    next[k] = upcoming[refs[k]! >> 1]!;
    upcoming[refs[k]! >> 1] = k;
  }
  return next;
}

/** A heap with the greatest key on top. */
class Heap {
  private readonly items: [key: number, page: number][] = [];

  push(key: number, page: number): void {
    const { items } = this;
    let i = items.push([key, page]) - 1;
    for (let up = (i - 1) >> 1; i > 0 && items[up]![0] < key; i = up, up = (i - 1) >> 1) {
      items[i] = items[up]!;
      items[up] = [key, page];
    }
  }

  pop(): [key: number, page: number] {
    const { items } = this;
    const top = items[0]!;
    const last = items.pop()!;
    if (items.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && items[child + 1]![0] > items[child]![0]) child++;
      if (items[child]![0] <= last[0]) break;
      items[i] = items[child]!;
      i = child;
    }
    items[i] = last;
    return top;
  }
}

/** Gives up the page that was not used for longest. */
export function lru({ refs, nrPages }: Trace, nrFrames: number): number {
  const order = new Order(nrPages);
  const seen = new Uint8Array(nrPages);
  let misses = 0;
  for (const ref of refs) {
    const page = ref >> 1;
    if (order.remove(page)) {
      order.push(page);
      continue;
    }
    misses += seen[page]!;
    seen[page] = 1;
    if (order.size === nrFrames) order.shift();
    order.push(page);
  }
  return misses;
}

/** CLOCK (Corbato, 1968): a hand goes round the frames, and takes the first whose used bit it has cleared before. */
export function clock({ refs, nrPages }: Trace, nrFrames: number): number {
  const frames = new Int32Array(nrFrames).fill(-1);
  const frameOf = new Int32Array(nrPages).fill(-1);
  const used = new Uint8Array(nrFrames);
  const seen = new Uint8Array(nrPages);
  let hand = 0;
  let misses = 0;
  for (const ref of refs) {
    const page = ref >> 1;
    if (frameOf[page]! >= 0) {
      used[frameOf[page]!] = 1;
      continue;
    }
    misses += seen[page]!;
    seen[page] = 1;
    while (used[hand] === 1) {
      used[hand] = 0;
      hand = (hand + 1) % nrFrames;
    }
    if (frames[hand]! >= 0) frameOf[frames[hand]!] = -1;
    frames[hand] = page;
    frameOf[page] = hand;
    used[hand] = 1;
    hand = (hand + 1) % nrFrames;
  }
  return misses;
}

/**
 * 2Q in full (Johnson and Shasha, 1994) with the paper's sizes: new pages go through a queue of a quarter of the memory, and only those that
 * come back while they are remembered (half as many as there are frames) enter the LRU list proper.
 */
export function twoQueues({ refs, nrPages }: Trace, nrFrames: number): number {
  const [in_, out, main] = [new Order(nrPages), new Order(nrPages), new Order(nrPages)];
  const [inMost, outMost] = [Math.max(1, nrFrames >> 2), Math.max(1, nrFrames >> 1)];
  const seen = new Uint8Array(nrPages);
  let misses = 0;
  const makeRoom = () => {
    if (in_.size + main.size < nrFrames) return;
    if (in_.size > inMost || main.size === 0) {
      out.push(in_.shift());
      if (out.size > outMost) out.shift();
    } else main.shift();
  };
  for (const ref of refs) {
    const page = ref >> 1;
    if (main.remove(page)) main.push(page);
    else if (!in_.has(page)) {
      misses += seen[page]!;
      seen[page] = 1;
      const remembered = out.remove(page);
      makeRoom();
      if (remembered) main.push(page);
      else in_.push(page);
    }
  }
  return misses;
}

/** Pages in the order in which they were pushed, as a linked list over arrays. */
class Order {
  size = 0;
  private readonly next: Int32Array;
  private readonly prev: Int32Array;
  private readonly inside: Uint8Array;
  private readonly end: number;

  constructor(nrPages: number) {
    this.end = nrPages;
    this.next = new Int32Array(nrPages + 1).fill(nrPages);
    this.prev = new Int32Array(nrPages + 1).fill(nrPages);
    this.inside = new Uint8Array(nrPages);
  }

  has(page: number): boolean {
    return this.inside[page] === 1;
  }

  push(page: number): void {
    const last = this.prev[this.end]!;
    this.next[last] = page;
    this.prev[page] = last;
    this.next[page] = this.end;
    this.prev[this.end] = page;
    this.inside[page] = 1;
    this.size++;
  }

  remove(page: number): boolean {
    if (this.inside[page] === 0) return false;
    this.next[this.prev[page]!] = this.next[page]!;
    this.prev[this.next[page]!] = this.prev[page]!;
    this.inside[page] = 0;
    this.size--;
    return true;
  }

  shift(): number {
    const first = this.next[this.end]!;
    this.remove(first);
    return first;
  }
}

export const POLICIES: Record<string, Policy> = { optimum, LRU: lru, CLOCK: clock, '2Q': twoQueues };
