import {
  MPA_DEPTH_NONE,
  type MpaAgreed,
  type MpaFrame,
  MpaFrameReader,
  type MpaOffer,
  mpaAccept,
  mpaFinish,
  mpaReject,
  mpaRequest,
} from '../wire/index.js';
import type { ConnWish } from './messages.js';

/**
 * MPA's set-up of one connection: a request and its answer, before the stream of a queue pair.
 *
 *   initiator: offer, connected -> request out; reply in -> agreed, or failed
 *   responder: request in -> requested; offer, then accept -> reply out, agreed; or reject
 *
 * Nothing but the request may come before the answer to it (RFC 5044 section 7.1), and all must be done within SETUP_MS. What a peer can make it hold is `buffer`.
 */

/** MPA's set-up must be done by then. */
const SETUP_MS = 10_000;
const SETUP_BUFFER_BYTES = 1024;

export interface SetupOwner {
  setTimer(fn: () => void, ms: number): () => void;
  /** Sends it. */
  answer(bytes: Uint8Array): void;
  /** The request is whole. */
  requested(wish: ConnWish): void;
  /** Both sides agree: the stream begins. */
  agreed(agreed: MpaAgreed, peerPrivateData: Uint8Array): void;
  /** The reply is one that this side cannot go on with: the peer is told why, by a Terminate message. */
  refuseReply(code: number, reason: string): void;
  failed(code: string, reason: string, privateData?: Uint8Array): void;
}

export class ConnSetup {
  /** Where bytes are read to before there is a queue pair. */
  readonly buffer = new Uint8Array(SETUP_BUFFER_BYTES);
  private readonly owner: SetupOwner;
  private readonly reader: MpaFrameReader;
  private readonly isInitiator: boolean;
  private readonly cancelTimer: () => void;
  private ownOffer: MpaOffer | undefined;
  private request: MpaFrame | undefined;

  constructor(owner: SetupOwner, isInitiator: boolean) {
    this.owner = owner;
    this.isInitiator = isInitiator;
    this.reader = new MpaFrameReader(isInitiator ? 'reply' : 'request');
    this.cancelTimer = owner.setTimer(
      () => owner.failed('ETIMEDOUT', `no answer within ${SETUP_MS / 1000} s`),
      SETUP_MS,
    );
  }

  /** Whether somebody on this side knows of the connection: who asked for it, or who was shown the request. */
  get isKnown(): boolean {
    return this.isInitiator || this.request !== undefined;
  }

  /** The request is there, and may be answered. */
  get hasRequest(): boolean {
    return this.request !== undefined;
  }

  offer(wish: ConnWish): void {
    this.ownOffer = { ird: wish.ird, ord: wish.ord, crc: wish.crc !== false, privateData: wish.privateData };
  }

  connected(): void {
    if (this.isInitiator) this.owner.answer(mpaRequest(this.ownOffer!));
  }

  /** Takes [0, nrBytes) of `bytes`; returns up to where: what is behind the frame is the stream's. */
  receive(bytes: Uint8Array, nrBytes: number): number {
    const { owner, reader } = this;
    // A request that waits is read on, so that the peer's end is seen; bytes are too early.
    if (reader.frame !== undefined) return this.refuseEarly(nrBytes);
    const taken = reader.receive(bytes, 0, nrBytes);
    const { frame, error } = reader;
    if (error !== undefined) owner.failed('EPROTO', error);
    else if (frame === undefined) return taken;
    else if (this.isInitiator) this.replyIn(frame);
    else if (taken < nrBytes) return this.refuseEarly(nrBytes);
    else this.requestIn(frame);
    return taken;
  }

  private refuseEarly(nrBytes: number): number {
    this.owner.failed('EPROTO', 'bytes follow the MPA request before its reply');
    return nrBytes;
  }

  private replyIn(frame: MpaFrame): void {
    const { owner } = this;
    const outcome = mpaFinish(this.ownOffer!, frame);
    if (outcome.kind === 'agreed') this.agreed(outcome.agreed, frame.privateData);
    else if (outcome.kind === 'failed') owner.refuseReply(outcome.code, outcome.reason);
    else owner.failed('ECONNREFUSED', 'the peer has rejected the connection', outcome.privateData);
  }

  private requestIn(frame: MpaFrame): void {
    this.request = frame;
    this.cancelTimer();
    const { ird = MPA_DEPTH_NONE, ord = MPA_DEPTH_NONE } = frame.enhanced ?? {};
    this.owner.requested({ privateData: frame.privateData, ird, ord });
  }

  /** After `offer`, which has `privateData`. */
  accept(privateData: Uint8Array): void {
    const { owner } = this;
    const { reply, agreed } = mpaAccept(this.request!, this.ownOffer!);
    owner.answer(reply);
    if (agreed === undefined) owner.failed('EPROTO', 'the peer asks for what this side has not');
    else this.agreed(agreed, privateData);
  }

  reject(privateData: Uint8Array): void {
    this.owner.answer(mpaReject(this.request!, privateData));
  }

  private agreed(agreed: MpaAgreed, privateData: Uint8Array): void {
    this.cancelTimer();
    this.owner.agreed(agreed, privateData);
  }

  /** The connection is over. */
  end(): void {
    this.cancelTimer();
  }
}
