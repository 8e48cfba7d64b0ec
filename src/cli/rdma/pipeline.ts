import { IBV_SEND_SIGNALED, type SendWr } from '../../rdma/index.js';
import { someOf } from './ping.js';
import { BUFFER_BYTES, DEPTH, type Remote } from './remote.js';

/** Many requests under way at once, as RDMA wants them: each has a buffer of its own until it is complete. */

/** A run of the served region, to be moved from or to a buffer. */
export interface Piece {
  /** From the region's beginning. */
  readonly offset: number;
  readonly length: number;
}

export type Opcode = SendWr['opcode'];

/** Called before a piece is written, or after it was read, with the buffer's address. */
export type PieceWork = (piece: Piece, va: number) => Promise<void> | void;

/**
 * Moves `pieces` with `opcode`, DEPTH at a time; `before` and `after` each are called once for each of them. No piece is longer than a buffer.
 * Throws KernelError EIO where a request fails.
 */
export async function movePieces(
  remote: Remote,
  opcode: Opcode,
  pieces: Iterator<Piece>,
  { before, after }: { before?: PieceWork; after?: PieceWork },
): Promise<void> {
  const { qp, sendCq, buffers, served } = remote;
  const underWay: (Piece | undefined)[] = new Array(DEPTH).fill(undefined);
  const start = async (slot: number): Promise<boolean> => {
    const { value: piece, done } = pieces.next();
    if (done === true) return false;
    const va = buffers.addr + slot * BUFFER_BYTES;
    await before?.(piece, va);
    underWay[slot] = piece;
    const sgList = [{ addr: va, length: piece.length, lkey: buffers.lkey }];
    const to = { remoteAddr: served.addr + piece.offset, rkey: served.rkey };
    qp.postSend({ wrId: slot, opcode, sendFlags: IBV_SEND_SIGNALED, sgList, ...to });
    return true;
  };
  let busy = 0;
  for (let slot = 0; slot < DEPTH; slot++) if (await start(slot)) busy++;
  while (busy > 0) {
    for (const { wrId: slot } of await someOf(remote, sendCq)) {
      await after?.(underWay[slot]!, buffers.addr + slot * BUFFER_BYTES);
      if (!(await start(slot))) busy--;
    }
  }
}
