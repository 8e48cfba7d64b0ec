import { IntervalTree } from '../../base/index.js';
import { PAGE_SIZE, VA_SIZE } from '../layout.js';
import type { MmuSubscription, Piece } from './subscription.js';

/**
 * The subscriptions of one mm, by address: who has a part of this range? A subscription is one piece of addresses, or several once mremap has
 * scattered its area. A look-up is O(log n) and allocates nothing.
 *
 * Use: `add`; `collect` for each bracket; `move` where mremap takes an area along; `remove`.
 */
export class Subscriptions {
  private readonly tree = new IntervalTree<Piece>();
  /** The only piece that there is. WHY: one driver is the usual case, and without the walk of the tree a bracket takes 40 instructions less. */
  sole: Piece | undefined;

  add(sub: MmuSubscription, start: number, end: number): void {
    sub.pieces = [this.addPiece(sub, start, end)];
  }

  private addPiece(sub: MmuSubscription, start: number, end: number): Piece {
    const piece: { -readonly [K in keyof Piece]: Piece[K] | undefined } = { sub, start, end, node: undefined };
    // WHY pages: a byte of 39 bits is a heap number wherever it is passed on.
    piece.node = this.tree.insert(Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE), piece as Piece);
    this.findSole();
    return piece as Piece;
  }

  private removePiece(piece: Piece): void {
    this.tree.remove(piece.node);
    this.findSole();
  }

  private findSole(): void {
    this.sole = this.tree.size === 1 ? this.tree.overlapping(0, VA_SIZE / PAGE_SIZE)[0] : undefined;
  }

  remove(sub: MmuSubscription): void {
    for (const piece of sub.pieces) this.removePiece(piece);
    sub.registered = false;
  }

  /** The pieces that touch the pages [startVpn, endVpn), into `found` from 0 on; returns how many. */
  collect(startVpn: number, endVpn: number, found: Piece[]): number {
    return this.tree.collect(startVpn, endVpn, found);
  }

  /** Those that touch the bytes [start, end), each once. */
  overlapping(start: number, end: number): MmuSubscription[] {
    if (this.tree.size === 0) return [];
    const pieces = this.tree.overlapping(Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE));
    return [...new Set(pieces.map((piece) => piece.sub))];
  }

  /** What `sub` has of the bytes [start, end) is at `newStart` from now on; `left`: it stays at the old addresses as well. */
  move(sub: MmuSubscription, start: number, end: number, newStart: number, left: boolean): void {
    sub.pieces = sub.pieces.flatMap((piece) => this.movePiece(piece, start, end, newStart, left));
  }

  private movePiece(piece: Piece, start: number, end: number, newStart: number, left: boolean): Piece[] {
    const from = Math.max(piece.start, start);
    const to = Math.min(piece.end, end);
    if (from >= to) return [piece];
    const moved = this.addPiece(piece.sub, newStart + (from - start), newStart + (to - start));
    if (left) return [piece, moved];
    this.removePiece(piece);
    const pieces = [moved];
    if (piece.start < from) pieces.push(this.addPiece(piece.sub, piece.start, from));
    if (to < piece.end) pieces.push(this.addPiece(piece.sub, to, piece.end));
    return pieces;
  }
}
