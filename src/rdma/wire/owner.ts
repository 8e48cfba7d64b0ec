/**
 * The two halves of an RNIC meet here: a stream (one connection's protocol, RdmaStream) and its owner (the NIC's queue pair, with the
 * memory that it may reach). The stream parses, orders, limits and segments; it never touches memory. The owner validates STags,
 * copies, and completes work; it never sees a header.
 *
 * What the owner may rely on:
 * - Every callback is made from within `receive`, `transmit` or `terminate`, never later, and not after `ended`.
 * - Bytes handed to `place` and `placeReceive` have passed the CRC where the connection has one: a damaged FPDU touches no memory.
 *   (siw places while it receives and checks afterwards.) Without CRC they come as TCP brings them, piece by piece.
 * - Lengths and order have been checked: what `place` gets of one message lies side by side, `placeReceive` stays within the capacity
 *   that `beginReceive` told, a READ response fits the READ that it answers to the byte.
 *
 * What the stream relies on: callbacks do not call `receive` or `transmit`, keep no `bytes` or `out`, and do not throw.
 *
 * **Results.** Negative: `refuse(code)`, the stream is terminated with that code. 0 of a call that moves bytes: the memory is not
 * there yet; the stream stops, and goes on at the same byte when `receive` or `transmit` is called again.
 *
 * **Numbers.** STags, lengths and offsets are uint32 numbers. Tagged offsets (TO) have 64 bits on the wire: what comes from the peer is
 * told as a number, which above 2^53 is rounded; no region reaches there, so that its bounds refuse it all the same. Remote TOs,
 * which this side sends, are kept exactly (`TxMessage.setRemoteTo`). A TO that wraps around is refused before the owner hears of it.
 */

/** One message to send. There is one object for each stream, which the owner fills in in `nextMessage`. */
export interface TxMessage {
  /** The owner's: given back in `fetch`, `sent`, `readDone`, `completeAtomic`. A non-negative int32. */
  id: number;
  /** RDMAP_WRITE, RDMAP_READ_REQUEST, RDMAP_SEND..., RDMAP_IMMEDIATE..., or RDMAP_ATOMIC_REQUEST. */
  opcode: number;
  /** Of a WRITE, SEND or READ: below 2^32. */
  lenBytes: number;
  /** Of a WRITE (sink), a READ or an atomic (source). */
  remoteStag: number;
  setRemoteTo(to: number | bigint): void;
  /** Where the response of a READ goes: `place` is called with these. */
  localStag: number;
  localTo: number;
  /** Of SEND with invalidate. */
  invalidateStag: number;
  /** The 64 bits of an immediate data message (RFC 7306 section 6). */
  immediateHigh: number;
  immediateLow: number;
  /** Of an atomic: an ATOMIC_... code, and its operands as unsigned 64-bit numbers (RFC 7306 section 5). */
  atomicOpcode: number;
  addOrSwap: bigint;
  addOrSwapMask: bigint;
  compare: bigint;
  compareMask: bigint;
}

/** A message that has arrived on queue 0. One object for each stream: read what you need during the call. */
export interface RxMessage {
  /** RDMAP_SEND..., RDMAP_IMMEDIATE... */
  readonly opcode: number;
  /** SEND: bytes placed. Immediate data: bytes of the WRITE message directly before it, or 0. */
  readonly lenBytes: number;
  /** The sender asks for an event (opcodes with SE). */
  readonly solicited: boolean;
  readonly invalidate: boolean;
  readonly invalidateStag: number;
  readonly immediateHigh: number;
  readonly immediateLow: number;
}

/** An atomic operation of the peer on 8 bytes of our memory. */
export interface AtomicRequest {
  /** ATOMIC_... code. */
  readonly opcode: number;
  readonly stag: number;
  /** TO, aligned to 8 bytes. */
  readonly to: number;
  readonly addOrSwap: bigint;
  readonly addOrSwapMask: bigint;
  readonly compare: bigint;
  readonly compareMask: bigint;
  /** For the owner to set: the value that was there. */
  original: bigint;
}

/** How a stream came to its end. */
export interface StreamEnd {
  /** A TERM_... code. */
  readonly code: number;
  /** True: the peer's Terminate message said so. False: we say so to the peer. */
  readonly byPeer: boolean;
  /** Which of our READs or atomics in flight the peer's message names, or -1. */
  readonly failedId: number;
  /** The code and what was wrong, for people. */
  readonly reason: string;
}

export interface StreamOwner {
  // Receiving: tagged messages (WRITEs of the peer, and responses to our READs).

  /** May [to, to + lenBytes) of `stag` be written? 0, or a refusal (TERM_DDP_*). Once for each segment that is not empty. */
  checkPlacement(opcode: number, stag: number, to: number, lenBytes: number): number;
  /** Copies [start, end) of `bytes` to `to`; the number copied, fewer (down to 0) where the memory is not there yet; or a refusal. */
  place(opcode: number, stag: number, to: number, bytes: Uint8Array, start: number, end: number): number;

  // Receiving: messages of queue 0. The owner has one receive in work: from `beginReceive` until `endReceive`.

  /** Takes the next posted receive for a message with this opcode: its capacity in bytes, or refuse(TERM_DDP_NO_BUFFER). */
  beginReceive(opcode: number): number;
  /** As `place`, into that receive from byte `offset` on. */
  placeReceive(offset: number, bytes: Uint8Array, start: number, end: number): number;
  /** The message is whole: invalidate what it says, complete the receive. 0, or a refusal (TERM_RDMAP_CANNOT_INVALIDATE, TERM_RDMAP_MAY_NOT_INVALIDATE). */
  endReceive(message: RxMessage): number;

  // Receiving: the peer's READs and atomics. They are queued (no more than IRD), and answered from `transmit`.

  /** May [to, to + lenBytes) of `stag` be read? 0, or a refusal (TERM_RDMAP_*). Not called for READs of no bytes. */
  checkSource(stag: number, to: number, lenBytes: number): number;
  /** Copies up to `lenBytes` from `to` to out[at]; the number copied, 0 where the memory is not there yet; or a refusal. */
  fetchSource(stag: number, to: number, out: Uint8Array, at: number, lenBytes: number): number;
  /** Carries it out: 1, or 0 where the memory is not there yet; or a refusal (TERM_RDMAP_*). */
  atomic(request: AtomicRequest): number;

  // Sending.

  /** Fills in what is to be sent next. False: nothing now; call `transmit` again when there is. */
  nextMessage(message: TxMessage): boolean;
  /** Copies up to `lenBytes` of a WRITE's or SEND's payload, from its byte `offset` on, to out[at]; results as `fetchSource`. */
  fetch(message: TxMessage, offset: number, out: Uint8Array, at: number, lenBytes: number): number;
  /** The last segment of the message is in `out`. Completes a SEND, WRITE or immediate; a READ or atomic is in flight now. */
  sent(message: TxMessage): void;
  /** The response to a READ is placed, whole. */
  readDone(id: number): void;
  /** The response to an atomic: stores the original value and completes it. 1, or 0 where the memory is not there yet. */
  completeAtomic(id: number, original: bigint): number;

  /** Once, the last callback: the stream is at its end. Where it was not the peer, `transmit` still gives out the Terminate message. */
  ended(end: StreamEnd): void;
}
