/**
 * A set of half-open intervals with integer bounds, each with a value: who covers this range? (Linux: interval_tree.h.)
 * Equal intervals may be in it several times. A treap whose nodes know the greatest end below them: insertion, removal and a
 * query cost O(log n + hits). A query allocates nothing.
 *
 * Use: `insert` returns the node, which `remove` takes back; `visit` walks the overlaps in order of their starts.
 * The tree must not be changed during a visit.
 */
export interface IntervalNode<T> {
  readonly start: number;
  readonly end: number;
  readonly value: T;
}

interface Node<T> extends IntervalNode<T> {
  readonly priority: number;
  maxEnd: number;
  left: Node<T> | undefined;
  right: Node<T> | undefined;
}

export class IntervalTree<T> {
  private root: Node<T> | undefined;
  private seed = 0x2545f491;
  private count = 0;

  get size(): number {
    return this.count;
  }

  insert(start: number, end: number, value: T): IntervalNode<T> {
    const node = { start, end, value, priority: this.random(), maxEnd: end, left: undefined, right: undefined };
    this.root = insertInto(this.root, node);
    this.count++;
    return node;
  }

  /** False when the node is not in the tree. */
  remove(node: IntervalNode<T>): boolean {
    const before = this.count;
    this.root = this.removeFrom(this.root, node as Node<T>);
    return this.count !== before;
  }

  /** Calls `fn` for each interval that overlaps [start, end), until it returns true; returns whether it did. */
  visit(start: number, end: number, fn: (value: T) => unknown): boolean {
    return visitFrom(this.root, start, end, fn);
  }

  /**
   * Puts the values of `visit` into `into`, from 0 on; returns how many. WHY beside `visit`: it calls nothing back, which a single page of an
   * mm with one driver would pay with 10 ns.
   */
  collect(start: number, end: number, into: T[]): number {
    return collectFrom(this.root, start, end, into, 0);
  }

  /** The values of `visit`, as an array. */
  overlapping(start: number, end: number): T[] {
    const found: T[] = [];
    this.collect(start, end, found);
    return found;
  }

  private removeFrom(tree: Node<T> | undefined, node: Node<T>): Node<T> | undefined {
    if (tree === undefined) return undefined;
    if (tree === node) {
      this.count--;
      return merge(tree.left, tree.right);
    }
    // Equal starts may be on either side of a rotated node.
    if (node.start <= tree.start) tree.left = this.removeFrom(tree.left, node);
    if (node.start >= tree.start) tree.right = this.removeFrom(tree.right, node);
    return update(tree);
  }

  private random(): number {
    this.seed ^= this.seed << 13;
    this.seed ^= this.seed >>> 17;
    this.seed ^= this.seed << 5;
    return this.seed;
  }
}

function update<T>(node: Node<T>): Node<T> {
  let maxEnd = node.end;
  if (node.left !== undefined && node.left.maxEnd > maxEnd) maxEnd = node.left.maxEnd;
  if (node.right !== undefined && node.right.maxEnd > maxEnd) maxEnd = node.right.maxEnd;
  node.maxEnd = maxEnd;
  return node;
}

function insertInto<T>(tree: Node<T> | undefined, node: Node<T>): Node<T> {
  if (tree === undefined) return node;
  if (node.priority > tree.priority) {
    const [left, right] = split(tree, node.start);
    node.left = left;
    node.right = right;
    return update(node);
  }
  if (node.start < tree.start) tree.left = insertInto(tree.left, node);
  else tree.right = insertInto(tree.right, node);
  return update(tree);
}

/** Nodes with a start below `start`, and the others. */
function split<T>(tree: Node<T> | undefined, start: number): [Node<T> | undefined, Node<T> | undefined] {
  if (tree === undefined) return [undefined, undefined];
  if (tree.start < start) {
    const [left, right] = split(tree.right, start);
    tree.right = left;
    return [update(tree), right];
  }
  const [left, right] = split(tree.left, start);
  tree.left = right;
  return [left, update(tree)];
}

function merge<T>(left: Node<T> | undefined, right: Node<T> | undefined): Node<T> | undefined {
  if (left === undefined) return right;
  if (right === undefined) return left;
  if (left.priority > right.priority) {
    left.right = merge(left.right, right);
    return update(left);
  }
  right.left = merge(left, right.left);
  return update(right);
}

function visitFrom<T>(tree: Node<T> | undefined, start: number, end: number, fn: (value: T) => unknown): boolean {
  if (tree === undefined || tree.maxEnd <= start) return false;
  if (visitFrom(tree.left, start, end, fn)) return true;
  if (tree.start >= end) return false;
  if (tree.end > start && fn(tree.value) === true) return true;
  return visitFrom(tree.right, start, end, fn);
}

function collectFrom<T>(tree: Node<T> | undefined, start: number, end: number, into: T[], nr: number): number {
  let node = tree;
  while (node !== undefined && node.maxEnd > start) {
    const { left } = node;
    if (node.start >= end) {
      node = left;
      continue;
    }
    if (left !== undefined && left.maxEnd > start) nr = collectFrom(left, start, end, into, nr);
    if (node.end > start) {
      if (into[nr] !== node.value) into[nr] = node.value;
      nr++;
    }
    node = node.right;
  }
  return nr;
}
