import type { Words } from '../../base/index.js';
import {
  IBV_ACCESS_LOCAL_WRITE,
  IBV_SEND_FENCE,
  IBV_SEND_INLINE,
  IBV_SEND_SIGNALED,
  IBV_SEND_SOLICITED,
  IBV_WC_COMP_SWAP,
  IBV_WC_FETCH_ADD,
  IBV_WC_LOCAL_INV,
  IBV_WC_RDMA_READ,
  IBV_WC_RDMA_WRITE,
  IBV_WC_SEND,
  IBV_WC_SUCCESS,
  IBV_WC_WR_FLUSH_ERR,
  IBV_WR_ATOMIC_CMP_AND_SWP,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_LOCAL_INV,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_RDMA_WRITE_WITH_IMM,
  IBV_WR_SEND,
  IBV_WR_SEND_WITH_IMM,
  IBV_WR_SEND_WITH_INV,
  type WcOpcode,
  type WcStatus,
} from '../constants.js';
import {
  ATOMIC_CMP_SWAP,
  ATOMIC_FETCH_ADD,
  RDMAP_ATOMIC_REQUEST,
  RDMAP_IMMEDIATE,
  RDMAP_IMMEDIATE_SE,
  RDMAP_READ_REQUEST,
  RDMAP_SEND,
  RDMAP_SEND_INVALIDATE,
  RDMAP_SEND_SE,
  RDMAP_SEND_SE_INVALIDATE,
  RDMAP_WRITE,
  refuse,
  TERM_RDMAP_LOCAL_CATASTROPHIC,
  type TxMessage,
} from '../wire/index.js';
import type { Access } from './access.js';
import type { NicMemory } from './nicmemory.js';
import { type Cqe, WorkRing } from './rings.js';
import { localStatus, refusePlacement } from './wcstatus.js';

/**
 * The send queue of a queue pair, in the NIC: work requests become messages in order, and completions in order, though reads and atomics are done later than
 * what was posted behind them.
 *
 *   tail                        next                          head
 *   | sent, perhaps in flight   | not begun, or being sent    |
 *
 * A request with immediate data is two messages: WRITE, then IMMEDIATE; or IMMEDIATE, then SEND: the peer's next receive gets it (IMMEDIATE_OF_SEND). RFC 7306 knows the first alone;
 * the second is between our own ends.
 */

/** In the high half of an immediate data message: the data belongs to the SEND behind it. */
export const IMMEDIATE_OF_SEND = 1;
const ALL_BITS = 2n ** 64n - 1n;

const WC_OPCODES: Readonly<Record<number, WcOpcode>> = {
  [IBV_WR_RDMA_WRITE]: IBV_WC_RDMA_WRITE,
  [IBV_WR_RDMA_WRITE_WITH_IMM]: IBV_WC_RDMA_WRITE,
  [IBV_WR_SEND]: IBV_WC_SEND,
  [IBV_WR_SEND_WITH_IMM]: IBV_WC_SEND,
  [IBV_WR_SEND_WITH_INV]: IBV_WC_SEND,
  [IBV_WR_RDMA_READ]: IBV_WC_RDMA_READ,
  [IBV_WR_ATOMIC_CMP_AND_SWP]: IBV_WC_COMP_SWAP,
  [IBV_WR_ATOMIC_FETCH_AND_ADD]: IBV_WC_FETCH_ADD,
  [IBV_WR_LOCAL_INV]: IBV_WC_LOCAL_INV,
};

export interface SendQueueOwner {
  readonly memory: NicMemory;
  readonly pd: number;
  readonly sqSigAll: boolean;
  complete(cqe: Cqe): void;
  /** A request has failed here: into the error state. */
  failed(reason: string): void;
  /** READs and atomics in flight. */
  nrOutstanding(): number;
}

export class SendQueue {
  readonly ring: WorkRing;
  private readonly owner: SendQueueOwner;
  private next = 0;
  /** Of the request at `next`, whether its first message is sent. */
  private half = false;
  private readonly done: Uint8Array;
  private readonly cqe: Cqe;
  private readonly big: BigInt64Array;
  /** Why a request failed, where that is known: its slot, and what the completion says. */
  private failedSlot = -1;
  private failedStatus: WcStatus = IBV_WC_WR_FLUSH_ERR;
  private vendorErr = 0;

  constructor(
    words: Words,
    memory: { buffer: SharedArrayBuffer },
    address: number,
    qpNum: number,
    owner: SendQueueOwner,
  ) {
    this.ring = new WorkRing(words, address);
    this.owner = owner;
    this.done = new Uint8Array(this.ring.nrSlots());
    this.big = new BigInt64Array(memory.buffer);
    this.cqe = {
      wrId: 0,
      status: IBV_WC_SUCCESS,
      opcode: IBV_WC_SEND,
      byteLen: 0,
      immData: 0,
      wcFlags: 0,
      qpNum,
      vendorErr: 0,
      invalidatedRkey: 0,
    };
  }

  private slotOf(position: number): number {
    return position & (this.done.length - 1);
  }

  /** Nothing waits to be sent, and nothing is in flight. */
  isIdle(): boolean {
    return this.next === this.ring.head() && this.ring.used() === 0;
  }

  /** See StreamOwner. */
  nextMessage(message: TxMessage): boolean {
    const { ring } = this;
    for (;;) {
      if (this.next === ring.head()) return false;
      const i = ring.entryOf(this.next);
      if (!this.half && (ring.flags(i) & IBV_SEND_FENCE) !== 0 && this.owner.nrOutstanding() > 0) return false;
      if (ring.opcode(i) !== IBV_WR_LOCAL_INV) {
        this.fill(message, i);
        return true;
      }
      const failed = this.owner.memory.invalidate(ring.imm(i), this.owner.pd);
      if (failed !== 0) {
        this.fail(this.slotOf(this.next), localStatus(failed), 0);
        this.owner.failed(
          `LOCAL_INV of key 0x${ring.imm(i).toString(16)}, which is no region's of this protection domain`,
        );
        return false;
      }
      this.finish();
    }
  }

  private fill(message: TxMessage, i: number): void {
    const { ring } = this;
    const opcode = ring.opcode(i);
    message.id = this.slotOf(this.next);
    message.lenBytes = ring.lenBytes(i);
    const solicited = (ring.flags(i) & IBV_SEND_SOLICITED) !== 0;
    if (opcode === IBV_WR_SEND_WITH_IMM && !this.half) fillImmediate(message, IMMEDIATE_OF_SEND, ring.imm(i), false);
    else if (opcode === IBV_WR_RDMA_WRITE_WITH_IMM && this.half) fillImmediate(message, 0, ring.imm(i), solicited);
    else if (opcode === IBV_WR_SEND || opcode === IBV_WR_SEND_WITH_IMM)
      message.opcode = solicited ? RDMAP_SEND_SE : RDMAP_SEND;
    else if (opcode === IBV_WR_SEND_WITH_INV) {
      message.opcode = solicited ? RDMAP_SEND_SE_INVALIDATE : RDMAP_SEND_INVALIDATE;
      message.invalidateStag = ring.imm(i);
    } else this.fillRemote(message, i, opcode);
  }

  private fillRemote(message: TxMessage, i: number, opcode: number): void {
    const { ring } = this;
    message.remoteStag = ring.rkey(i);
    message.setRemoteTo(ring.remoteAddr(i));
    if (opcode === IBV_WR_RDMA_READ) {
      message.opcode = RDMAP_READ_REQUEST;
      // The sink is this request: its pieces are found by it when the response comes.
      message.localStag = message.id;
      message.localTo = 0;
    } else if (opcode === IBV_WR_RDMA_WRITE || opcode === IBV_WR_RDMA_WRITE_WITH_IMM) message.opcode = RDMAP_WRITE;
    else this.fillAtomic(message, i, opcode);
  }

  private fillAtomic(message: TxMessage, i: number, opcode: number): void {
    const { ring } = this;
    const swaps = opcode === IBV_WR_ATOMIC_CMP_AND_SWP;
    message.opcode = RDMAP_ATOMIC_REQUEST;
    message.atomicOpcode = swaps ? ATOMIC_CMP_SWAP : ATOMIC_FETCH_ADD;
    message.addOrSwap = swaps ? ring.swap(i) : ring.compareAdd(i);
    message.addOrSwapMask = swaps ? ALL_BITS : 0n;
    message.compare = swaps ? ring.compareAdd(i) : 0n;
    message.compareMask = swaps ? ALL_BITS : 0n;
  }

  /** The payload of a WRITE or SEND. See StreamOwner. */
  fetch(access: Access, message: TxMessage, offset: number, out: Uint8Array, at: number, lenBytes: number): number {
    const { ring, owner } = this;
    const i = ring.entryOf(this.next);
    if ((ring.flags(i) & IBV_SEND_INLINE) !== 0) {
      const inline = new Uint8Array(this.big.buffer, ring.inlineAddr(i) + offset, lenBytes);
      out.set(inline, at);
      return lenBytes;
    }
    const result = this.overPieces(i, offset, lenBytes, (key, addr, moved, n) =>
      owner.memory.read(access, key, addr, 0, owner.pd, out, at + moved, n),
    );
    if (result >= 0) return result;
    this.fail(message.id, localStatus(result), 0);
    return refuse(TERM_RDMAP_LOCAL_CATASTROPHIC);
  }

  /** The response to a READ: into the pieces of request `slot`. See StreamOwner. */
  place(access: Access, slot: number, offset: number, bytes: Uint8Array, start: number, end: number): number {
    const { ring, owner } = this;
    const i = ring.entryOf(slot);
    const result = this.overPieces(i, offset, end - start, (key, addr, moved, n) =>
      owner.memory.write(access, key, addr, IBV_ACCESS_LOCAL_WRITE, owner.pd, bytes, start + moved, start + moved + n),
    );
    if (result >= 0) return result;
    this.fail(slot, localStatus(result), 0);
    return refusePlacement(result);
  }

  /** Calls `move` for each piece of bytes [offset, offset + lenBytes) of the entry at word `i`. The bytes moved, or a failure. */
  private overPieces(
    i: number,
    offset: number,
    lenBytes: number,
    move: (key: number, addr: number, moved: number, lenBytes: number) => number,
  ): number {
    const { ring } = this;
    let [before, moved] = [0, 0];
    for (let k = 0; k < ring.nrSges(i) && moved < lenBytes; k++) {
      const length = ring.sgeLength(i, k);
      const into = offset + moved - before;
      before += length;
      if (into >= length) continue;
      const wanted = Math.min(lenBytes - moved, length - into);
      const n = move(ring.sgeKey(i, k), ring.sgeAddr(i, k) + into, moved, wanted);
      if (n < 0) return n;
      moved += n;
      if (n < wanted) break;
    }
    return moved;
  }

  /** The last segment of a message is out. See StreamOwner. */
  sent(message: TxMessage): void {
    const i = this.ring.entryOf(this.next);
    const opcode = this.ring.opcode(i);
    if (!this.half && (opcode === IBV_WR_SEND_WITH_IMM || opcode === IBV_WR_RDMA_WRITE_WITH_IMM)) {
      this.half = true;
      return;
    }
    if (message.opcode === RDMAP_READ_REQUEST || message.opcode === RDMAP_ATOMIC_REQUEST)
      this.next = (this.next + 1) | 0;
    else this.finish();
  }

  /** The request at `next` is done as soon as those before it are. */
  private finish(): void {
    this.half = false;
    this.done[this.slotOf(this.next)] = 1;
    this.next = (this.next + 1) | 0;
    this.completeInOrder();
  }

  readDone(slot: number): void {
    this.done[slot] = 1;
    this.completeInOrder();
  }

  /** The old value goes where the request wants it. See StreamOwner. */
  completeAtomic(access: Access, slot: number, original: bigint): number {
    const { ring, owner } = this;
    const i = ring.entryOf(slot);
    const result = owner.memory.withWord(
      access,
      ring.sgeKey(i, 0),
      ring.sgeAddr(i, 0),
      IBV_ACCESS_LOCAL_WRITE,
      owner.pd,
      (pa) => void (this.big[pa / 8] = BigInt.asIntN(64, original)),
    );
    if (result < 0) {
      this.fail(slot, localStatus(result), 0);
      return refuse(TERM_RDMAP_LOCAL_CATASTROPHIC);
    }
    if (result === 1) this.readDone(slot);
    return result;
  }

  private completeInOrder(): void {
    const { ring } = this;
    for (let at = ring.tail(); at !== this.next && this.done[this.slotOf(at)] === 1; at = (at + 1) | 0) {
      this.done[this.slotOf(at)] = 0;
      const failed = this.failedSlot === this.slotOf(at);
      const signalled = failed || this.owner.sqSigAll || (ring.flags(ring.entryOf(at)) & IBV_SEND_SIGNALED) !== 0;
      this.retire(at, failed ? this.failedStatus : IBV_WC_SUCCESS, signalled);
    }
  }

  /** The request at `at`, the oldest, gives its place back, and then completes: who sees that may post the next one. */
  private retire(at: number, status: WcStatus, signalled: boolean): void {
    const { ring, cqe } = this;
    const i = ring.entryOf(at);
    cqe.wrId = ring.wrId(i);
    cqe.status = status;
    cqe.opcode = WC_OPCODES[ring.opcode(i)]!;
    cqe.byteLen = ring.lenBytes(i);
    cqe.vendorErr = status === IBV_WC_SUCCESS || status === IBV_WC_WR_FLUSH_ERR ? 0 : this.vendorErr;
    ring.setTail(at + 1);
    if (signalled) this.owner.complete(cqe);
  }

  /** What the completion of the request in `slot` will say: the first that is told counts. */
  fail(slot: number, status: WcStatus, vendorErr: number): void {
    if (this.failedSlot >= 0) return;
    this.failedSlot = slot;
    this.failedStatus = status;
    this.vendorErr = vendorErr;
  }

  /** The same for the oldest that is not complete. */
  failOldest(status: WcStatus): void {
    if (this.ring.used() > 0) this.fail(this.slotOf(this.ring.tail()), status, 0);
  }

  /** All that is posted completes: what has failed with its status, what was done as done, all else as flushed. */
  flush(): void {
    const { ring } = this;
    const head = ring.head();
    for (let at = ring.tail(); at !== head; at = (at + 1) | 0) {
      const slot = this.slotOf(at);
      const status =
        slot === this.failedSlot ? this.failedStatus : this.done[slot] === 1 ? IBV_WC_SUCCESS : IBV_WC_WR_FLUSH_ERR;
      if (slot === this.failedSlot) this.failedSlot = this.done.length;
      this.done[slot] = 0;
      this.retire(at, status, true);
    }
    this.next = head;
    this.half = false;
  }
}

function fillImmediate(message: TxMessage, high: number, low: number, solicited: boolean): void {
  message.opcode = solicited ? RDMAP_IMMEDIATE_SE : RDMAP_IMMEDIATE;
  message.lenBytes = 0;
  message.immediateHigh = high;
  message.immediateLow = low;
}
