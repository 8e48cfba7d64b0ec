import type { Crc32c } from './crc32c.js';
import type { StreamOwner } from './owner.js';

/**
 * One RDMAP stream over one TCP connection, in full operation: what follows the MPA set-up.
 *
 * Use: `openStream(owner, options)`; `receive` for each chunk that TCP brings, in order; `transmit` whenever there may be something to
 * send and the socket takes it: after `nextMessage` would give something new, after `receive` (READs of the peer), and when memory
 * that was waited for has come. When `ended` was called: `transmit` once more, then half-close the socket.
 *
 * Guarantees: bytes go in and out, nothing else; no exception leaves it, whatever the peer sends; memory is fixed at the start: one
 * FPDU, IRD requests of the peer, ORD of ours. Nothing is allocated for a segment.
 */

export interface StreamOptions {
  /** Of the MPA set-up: the responder sends nothing before the first FPDU of the initiator has come (RFC 5044 section 7.1). */
  readonly initiator: boolean;
  /** CRC32C over every FPDU, as agreed; undefined where it is not used. */
  readonly crc: Crc32c | undefined;
  /** READs and atomics that the peer may have in flight, and that we may: as agreed. */
  readonly ird: number;
  readonly ord: number;
  /** What the initiator sends at once in the peer-to-peer model (RFC 6581); sent and answered within the stream. */
  readonly rtr?: 'none' | 'write' | 'read';
  /** Payload of the longest DDP segment that we send: 256 to 65504 bytes, a multiple of 4. Default 32768. */
  readonly segmentBytes?: number;
}

/** Why `transmit` has stopped. */
export const TX_IDLE = 0;
/** `out` has no room for the next segment. */
export const TX_FULL = 1;
/** A fetch said that memory is not there yet. */
export const TX_MEMORY = 2;
/** A READ or atomic waits, and all behind it: ORD are in flight. */
export const TX_CREDIT = 3;
/** The responder waits for the first FPDU. */
export const TX_HELD = 4;
/** At its end: nothing more will come. */
export const TX_DONE = 5;

export interface RdmaStream {
  /**
   * Takes [start, end) of `bytes`; returns the index up to which it was taken. Less than `end`: memory is not there yet
   * (`rxStalled`); keep the rest, hold back TCP, and give it again later. After the end everything is taken and ignored.
   */
  receive(bytes: Uint8Array, start: number, end: number): number;
  readonly rxStalled: boolean;
  /** Whether the last byte taken ended an FPDU, so that a close of TCP there cuts nothing off. */
  readonly atBoundary: boolean;

  /** Writes whole FPDUs into [at, end) of `out`; returns the index after the last. `txState` says why it stopped. */
  transmit(out: Uint8Array, at: number, end: number): number;
  readonly txState: number;

  /** READs and atomics of ours in flight: what a fence waits for. */
  readonly nrOutstanding: number;
  /** Ends it from this side: the peer gets a Terminate message with this code. */
  terminate(code: number, reason: string): void;
}

export type OpenStream = (owner: StreamOwner, options: StreamOptions) => RdmaStream;
