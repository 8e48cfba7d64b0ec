import type { ReadRequest } from './rdmap.js';

/**
 * The two queues of READs and atomics of a connection, both of a size that the set-up has agreed on: `OutstandingReads`, ours that
 * wait for their response (ORD), and `InboundReads`, the peer's that wait for ours (IRD). Both are answered in order.
 */

/** The id of the READ that the stream itself sends as the first message (RFC 6581's RTR). */
export const RTR_ID = -1;

const MSN_MASK = 0xffff_ffff;

class Ring<T> {
  nr = 0;
  private first = 0;
  private readonly entries: T[];

  constructor(size: number, make: () => T) {
    this.entries = Array.from({ length: size }, make);
  }

  get isFull(): boolean {
    return this.nr === this.entries.length;
  }

  /** The oldest. */
  get head(): T {
    return this.entries[this.first];
  }

  at(index: number): T {
    return this.entries[(this.first + index) % this.entries.length];
  }

  /** A new last entry, to be filled in. */
  push(): T {
    return this.at(this.nr++);
  }

  shift(): void {
    this.first = (this.first + 1) % this.entries.length;
    this.nr--;
  }
}

export interface OutstandingRead {
  id: number;
  isAtomic: boolean;
  msn: number;
  /** Where the response goes, and how long it is. */
  stag: number;
  to: number;
  lenBytes: number;
}

export class OutstandingReads extends Ring<OutstandingRead> {
  constructor(ord: number) {
    super(ord, () => ({ id: 0, isAtomic: false, msn: 0, stag: 0, to: 0, lenBytes: 0 }));
  }

  /** The id of the one with that MSN, or -1. */
  idOf(msn: number): number {
    if (this.nr === 0) return -1;
    const index = (msn - this.head.msn) & MSN_MASK;
    return index >= 0 && index < this.nr ? this.at(index).id : -1;
  }
}

export interface InboundRead extends ReadRequest {
  msn: number;
  isAtomic: boolean;
  requestId: number;
  opcode: number;
  addOrSwap: bigint;
  addOrSwapMask: bigint;
  compare: bigint;
  compareMask: bigint;
}

export class InboundReads extends Ring<InboundRead> {
  constructor(ird: number) {
    super(ird, () => ({
      msn: 0,
      isAtomic: false,
      requestId: 0,
      sinkStag: 0,
      sinkHigh: 0,
      sinkLow: 0,
      lenBytes: 0,
      sourceStag: 0,
      sourceHigh: 0,
      sourceLow: 0,
      opcode: 0,
      addOrSwap: 0n,
      addOrSwapMask: 0n,
      compare: 0n,
      compareMask: 0n,
    }));
  }
}
