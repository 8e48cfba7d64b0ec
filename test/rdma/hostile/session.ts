import { firstDifference, pattern } from '../rdmaworld.js';
import type { RawPeer } from './rawpeer.js';
import {
  ATOMIC_RESPONSE,
  atomicRequest,
  concat,
  fpdu,
  opcodeOf,
  READ_RESPONSE,
  readRequest,
  SEND,
  type Source,
  TAGGED_BYTES,
  tagged,
  UNTAGGED_BYTES,
  untagged,
} from './segments.js';
import { type Part, RECV_BYTES, type Victim } from './victim.js';

export type Dice = (n: number) => number;

/** Numbers below n that follow from a seed. */
export function dice(seed: number): Dice {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

const LONGEST = 3000;

/** A peer that keeps to the protocol, and knows what its requests must do to the victim's memory. */
export class Session {
  readonly victim: Victim;
  readonly peer: RawPeer;
  readonly next: Dice;
  sendMsn = 1;
  readMsn = 1;
  private nrSends = 0;
  private nrSegments = 0;

  constructor(victim: Victim, peer: RawPeer, next: Dice) {
    this.victim = victim;
    this.peer = peer;
    this.next = next;
  }

  at(part: Part, offset: number): Source {
    return { stag: this.victim.keyOf(part), to: BigInt(this.victim.places[part].va + offset) };
  }

  /** Sends `segments` as FPDUs, cut anywhere. */
  send(...segments: Uint8Array[]): void {
    this.sendBytes(concat(...segments.map((segment) => fpdu(segment))));
  }

  sendBytes(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const n = this.next(2) === 0 ? bytes.length - at : 1 + this.next(bytes.length - at);
      this.peer.send(bytes.subarray(at, at + n));
      at += n;
    }
  }

  /** One valid request of any kind. */
  async request(): Promise<void> {
    const kind = this.next(6);
    if (kind < 3) this.write((['rw', 'wo', 'spare'] as const)[kind]!);
    else if (kind === 3) await this.read((['rw', 'ro'] as const)[this.next(2)]!);
    else if (kind === 4) await this.message();
    else await this.atomic();
  }

  write(part: 'rw' | 'wo' | 'spare'): void {
    const { length } = this.victim.places[part];
    const bytes = pattern(1 + this.next(LONGEST), this.next(256));
    const start = this.next(length - bytes.length);
    this.send(...this.writeSegments(part, start, bytes));
    this.victim.changed(part, start, bytes);
  }

  /** One to three segments. */
  private writeSegments(part: Part, start: number, bytes: Uint8Array): Uint8Array[] {
    const cuts = [0, this.next(bytes.length), this.next(bytes.length), bytes.length].sort((a, b) => a - b);
    return [0, 1, 2]
      .filter((k) => cuts[k + 1]! > cuts[k]!)
      .map((k) =>
        tagged({
          ...this.at(part, start + cuts[k]!),
          last: cuts[k + 1] === bytes.length,
          payload: bytes.subarray(cuts[k], cuts[k + 1]),
        }),
      );
  }

  async read(part: 'rw' | 'ro'): Promise<void> {
    const { length, offset } = this.victim.places[part];
    const lenBytes = this.next(LONGEST);
    const start = this.next(length - lenBytes);
    const wanted = this.victim.shadow.slice(offset + start, offset + start + lenBytes);
    this.send(readRequest(this.readMsn++, this.at(part, start), lenBytes));
    const seen: Uint8Array[] = [];
    for (let got = -1; got < lenBytes; ) {
      const segment = await this.nextSegment();
      if (opcodeOf(segment) !== READ_RESPONSE) throw new Error(`opcode ${opcodeOf(segment)} instead of a response`);
      seen.push(segment.subarray(TAGGED_BYTES));
      got = Math.max(got, 0) + segment.length - TAGGED_BYTES;
    }
    const at = firstDifference(concat(...seen), wanted);
    if (at >= 0) throw new Error(`a READ of ${part} + ${start}: byte ${at} is not what is there`);
  }

  private async nextSegment(): Promise<Uint8Array> {
    await this.peer.until(() => this.peer.segments().length > this.nrSegments);
    return this.peer.segments()[this.nrSegments++]!;
  }

  /** A SEND that fits its receive; the victim posts that again. */
  async message(): Promise<void> {
    this.sendMessage();
    await this.victim.until(() => this.victim.repost() > 0);
  }

  sendMessage(): void {
    const bytes = pattern(this.next(RECV_BYTES + 1), this.next(256));
    this.send(untagged({ opcode: SEND, msn: this.sendMsn++, payload: bytes }));
    this.victim.shadow.set(bytes, this.victim.receiveOffset(this.nrSends++));
  }

  async atomic(): Promise<void> {
    const { offset, length } = this.victim.places.rw;
    const start = 8 * this.next(length / 8);
    const words = new DataView(this.victim.shadow.buffer, offset + start, 8);
    const [before, add] = [words.getBigUint64(0, true), BigInt(this.next(2 ** 30))];
    const msn = this.readMsn++;
    this.send(atomicRequest(msn, this.at('rw', start), add));
    words.setBigUint64(0, before + add, true);
    const segment = await this.nextSegment();
    const body = new DataView(segment.buffer, segment.byteOffset + UNTAGGED_BYTES);
    if (opcodeOf(segment) !== ATOMIC_RESPONSE || body.getUint32(0) !== msn || body.getBigUint64(4) !== before)
      throw new Error(`an atomic answered with ${Buffer.from(segment).toString('hex')}`);
  }
}
