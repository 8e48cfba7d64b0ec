import { KernelError } from '../../base/index.js';
import { StreamCore } from './core.js';
import type { Crc32c } from './crc32c.js';
import { FpduReceiver } from './fpdu.js';
import type { Rtr } from './mpasetup.js';
import type { StreamOwner } from './owner.js';
import { SegmentReceiver } from './receiver.js';
import { Transmitter } from './transmitter.js';

/**
 * One RDMAP stream over one TCP connection, in full operation: what follows the MPA set-up.
 *
 * Use: `new RdmaStream(owner, options)`; `receive` for each chunk that TCP brings, in order; `transmit` whenever there may be something to
 * send and the socket takes it: after `nextMessage` would give something new, after `receive` (READs of the peer), and when memory
 * that was waited for has come. When `ended` was called: `transmit` once more, then half-close the socket.
 *
 * Guarantees: bytes go in and out, nothing else; no exception leaves it, whatever the peer sends; memory is fixed at the start: IRD
 * requests of the peer, ORD of ours. Nothing is allocated for a segment.
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
  readonly rtr?: Rtr;
  /** Payload of the longest DDP segment that we send: 256 to 65504 bytes, a multiple of 4. Default: the longest. */
  readonly segmentBytes?: number;
}

const SEGMENT_BYTES_MIN = 256;
const SEGMENT_BYTES_MAX = 65504;
/** WHY: what the CRC takes for the end of an FPDU, however long that is, is two fifths of all that it takes for 32 KiB (crcfold.ts). */
const DEFAULT_SEGMENT_BYTES = SEGMENT_BYTES_MAX;
const DEPTH_MAX = 4096;

export class RdmaStream {
  private readonly core: StreamCore;
  private readonly fpdus: FpduReceiver;
  private readonly transmitter: Transmitter;

  /** @throws KernelError EINVAL for options that are out of range */
  constructor(owner: StreamOwner, options: StreamOptions) {
    const { initiator, crc, ird, ord, rtr = 'none', segmentBytes = DEFAULT_SEGMENT_BYTES } = options;
    checkRange('ird', ird, 0, DEPTH_MAX);
    checkRange('ord', ord, 0, DEPTH_MAX);
    checkRange('segmentBytes', segmentBytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    if (segmentBytes % 4 !== 0)
      throw new KernelError('EINVAL', 'RdmaStream', `segmentBytes ${segmentBytes} must be a multiple of 4`);
    this.core = new StreamCore(owner, ird, ord, initiator);
    this.fpdus = new FpduReceiver(new SegmentReceiver(this.core), crc);
    this.transmitter = new Transmitter(this.core, crc, segmentBytes, initiator ? rtr : 'none');
  }

  /**
   * Takes [start, end) of `bytes`; returns the index up to which it was taken. The rest is to be given again: where memory is not there yet (`rxStalled`), hold back TCP, and call it
   * again later, even if there is no rest; otherwise that is an FPDU which is not all there, at most FPDU_BYTES_MAX, and comes again with what is behind it. After the end everything is
   * taken and ignored.
   */
  receive(bytes: Uint8Array, start: number, end: number): number {
    return this.core.isOpen ? this.fpdus.receive(bytes, start, end) : end;
  }

  get rxStalled(): boolean {
    return this.core.isOpen && this.fpdus.stalled;
  }

  /** Whether the last byte taken ended an FPDU: with nothing left, a close of TCP there cuts nothing off. */
  get atBoundary(): boolean {
    return this.fpdus.atBoundary;
  }

  /**
   * Writes whole FPDUs into [at, end) of `out`; returns the index after the last. `txState` says why it stopped. An FPDU that does not
   * fit is cut shorter where it is the first; with 512 bytes of room there is always one.
   */
  transmit(out: Uint8Array, at: number, end: number): number {
    return this.transmitter.transmit(out, at, end);
  }

  /** TX_IDLE, TX_FULL, TX_MEMORY, TX_CREDIT, TX_HELD or TX_DONE. */
  get txState(): number {
    return this.transmitter.state;
  }

  /** READs and atomics of ours in flight: what a fence waits for. */
  get nrOutstanding(): number {
    return this.core.outstanding.nr;
  }

  /** Ends it from this side: the peer gets a Terminate message with this code. `ended` is called before it returns. */
  terminate(code: number, reason: string): void {
    this.core.quote.clear();
    this.core.fail(code, reason);
  }
}

function checkRange(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new KernelError('EINVAL', 'RdmaStream', `${name} ${value} must be an integer from ${min} to ${max}`);
}
