import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ATOMIC_FETCH_ADD,
  ATOMIC_SWAP,
  createCrc32c,
  FPDU_BYTES_MAX,
  RDMAP_SEND,
  RdmaStream,
  terminateText,
} from '../../../src/rdma/wire/index.js';
import { concat, expectSame, fpdu, pattern } from './bytes.js';
import { Feeder } from './feeder.js';
import { atomic, FlatNic, immediate, read, type Work, write } from './flatnic.js';
import { Pair } from './pair.js';

/**
 * Random work through random cuts of TCP and memory that is absent at random; and damaged streams. A seed of fast-check's reproduces a run.
 */

const crc = createCrc32c();
const STAG = 7;
const BASE = 0x1000;
const REGION_BYTES = 100_000;
const SINK = 9;

/** What is done, by both sides to the memory of the other. */
type Step =
  | { kind: 'write'; at: number; lenBytes: number }
  | { kind: 'read'; at: number; lenBytes: number }
  | { kind: 'send'; lenBytes: number }
  | { kind: 'atomic'; word: number; value: number }
  | { kind: 'immediate'; value: number };

const lengths = fc.oneof(fc.nat(40), fc.nat(5000), fc.nat(40_000));
const at = fc.nat(50_000);
const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('write' as const), at, lenBytes: lengths }),
    fc.record({ kind: fc.constant('read' as const), at, lenBytes: lengths }),
    fc.record({ kind: fc.constant('send' as const), lenBytes: lengths }),
    fc.record({ kind: fc.constant('atomic' as const), word: fc.nat(4), value: fc.nat(1000) }),
    fc.record({ kind: fc.constant('immediate' as const), value: fc.nat() }),
  ),
  { maxLength: 12 },
);

/** One side's work, and what must come of it. */
class Side {
  readonly nic: FlatNic;
  readonly steps: readonly Step[];
  readonly seed: number;

  constructor(nic: FlatNic, list: readonly Step[], seed: number) {
    this.nic = nic;
    this.steps = list;
    this.seed = seed;
    nic.region(STAG, BASE, new Uint8Array(REGION_BYTES));
    nic.region(SINK, 0, new Uint8Array(REGION_BYTES), false);
    for (let i = 0; i < 12; i++) nic.receives.push(new Uint8Array(40_000));
    nic.queue.push(...list.map((step, i) => this.work(step, i)));
  }

  private payload(i: number, lenBytes: number): Uint8Array {
    return pattern(lenBytes, this.seed + i);
  }

  private work(step: Step, id: number): Work {
    if (step.kind === 'write') return write(STAG, BASE + step.at, this.payload(id, step.lenBytes), id);
    if (step.kind === 'read') return read([STAG, BASE + step.at], [SINK, step.at], step.lenBytes, id);
    if (step.kind === 'send') return { opcode: RDMAP_SEND, payload: this.payload(id, step.lenBytes), id };
    if (step.kind === 'immediate') return immediate(step.value);
    const op = step.value % 2 === 0 ? ATOMIC_FETCH_ADD : ATOMIC_SWAP;
    return atomic(op, [STAG, BASE + 99_000 + 8 * step.word], BigInt(step.value));
  }

  /** The other side's memory, which nobody else writes, is what the writes in their order and the atomics make it. */
  check(other: Side): void {
    const memory = new Uint8Array(REGION_BYTES);
    const words = new DataView(memory.buffer);
    const originals: bigint[] = [];
    for (const [i, step] of this.steps.entries()) {
      if (step.kind === 'write') memory.set(this.payload(i, step.lenBytes), step.at);
      if (step.kind !== 'atomic') continue;
      const at = 99_000 + 8 * step.word;
      const original = words.getBigUint64(at, true);
      originals.push(original);
      words.setBigUint64(at, step.value % 2 === 0 ? original + BigInt(step.value) : BigInt(step.value), true);
    }
    expectSame(other.nic.regions.get(STAG)!.bytes, memory);
    expect(this.nic.originals).toEqual(originals);
    this.checkMessages(other);
    const reads = this.steps.flatMap((step, i) => (step.kind === 'read' ? [`read ${i}`] : []));
    expect(this.nic.log.filter((line) => line.startsWith('read'))).toEqual(reads);
  }

  private checkMessages(other: Side): void {
    const sent = this.steps.filter((step) => step.kind === 'send' || step.kind === 'immediate');
    expect(other.nic.received.length).toBe(sent.length);
    for (const [i, step] of sent.entries()) {
      const { bytes, message } = other.nic.received[i];
      if (step.kind === 'send') expectSame(bytes, this.payload(this.steps.indexOf(step), step.lenBytes));
      else expect(message.immediateLow).toBe((step as { value: number }).value);
    }
  }
}

describe('any work of both sides', () => {
  test.each([true, false])(
    'with CRC %s: all arrives, in order, whatever TCP cuts and whenever memory is absent',
    (withCrc) => {
      fc.assert(
        fc.property(steps, steps, fc.infiniteStream(fc.nat(0xffff)), fc.nat(3), (mine, theirs, dice, absence) => {
          const roll = () => dice.next().value as number;
          const cut = (max: number) => (roll() % 3 === 0 ? max : Math.min(max, 1 + (roll() % 3000)));
          const segmentBytes = [256, 1448, 32768][roll() % 3];
          const pair = new Pair(withCrc ? crc : undefined, { rtr: 'write', segmentBytes }, cut);
          const absent = (lenBytes: number) => {
            const die = roll() % 8;
            return die >= absence ? lenBytes : die === 0 ? 0 : roll() % (lenBytes + 1);
          };
          pair.a.absent = absent;
          pair.b.absent = absent;
          const [a, b] = [new Side(pair.a, mine, 1), new Side(pair.b, theirs, 100)];
          pair.run();
          expect([pair.a.end, pair.b.end]).toEqual([undefined, undefined]);
          a.check(b);
          b.check(a);
          expect([pair.streamA.atBoundary, pair.streamB.atBoundary]).toEqual([true, true]);
          expect([pair.feederA.nrLeft, pair.feederB.nrLeft]).toEqual([0, 0]);
        }),
        { numRuns: 40 },
      );
    },
  );
});

/** What a sender of some work would put on the wire. */
function recorded(list: readonly Step[], withCrc: boolean): Uint8Array {
  const nic = new FlatNic();
  const stream = new RdmaStream(nic, {
    initiator: true,
    crc: withCrc ? crc : undefined,
    ird: 4,
    ord: 30,
    segmentBytes: 1448,
  });
  new Side(nic, list, 1);
  const out = new Uint8Array(1_000_000);
  return out.slice(0, stream.transmit(out, 0, out.length));
}

/** A responder with two regions and receives; what is beside the regions in their buffers must never change. */
class Target {
  readonly nic = new FlatNic();
  private readonly backing = new Uint8Array(2 * REGION_BYTES).fill(0xee);
  private readonly stream: RdmaStream;
  private readonly feeder: Feeder;

  constructor(withCrc: boolean) {
    this.nic.region(STAG, BASE, this.backing.subarray(1000, 1000 + REGION_BYTES).fill(0));
    for (let i = 0; i < 12; i++) this.nic.receives.push(new Uint8Array(1000));
    this.stream = new RdmaStream(this.nic, { initiator: false, crc: withCrc ? crc : undefined, ird: 4, ord: 4 });
    this.feeder = new Feeder(this.stream);
  }

  give(bytes: Uint8Array): void {
    this.feeder.give(bytes);
    expect(this.stream.rxStalled).toBe(false);
    expect(this.feeder.nrLeft).toBeLessThan(FPDU_BYTES_MAX);
    const out = new Uint8Array(4096);
    while (this.stream.transmit(out, 0, out.length) > 0);
  }

  check(): void {
    expect(this.backing.subarray(0, 1000).every((byte) => byte === 0xee)).toBe(true);
    expect(this.backing.subarray(1000 + REGION_BYTES).every((byte) => byte === 0xee)).toBe(true);
    if (this.nic.end !== undefined) expect(terminateText(this.nic.end.code)).not.toContain('unknown');
  }

  get memory(): Uint8Array {
    return this.backing.subarray(1000, 1000 + REGION_BYTES);
  }
}

const damage = fc.array(
  fc.record({
    kind: fc.constantFrom('flip', 'cut', 'insert', 'repeat'),
    at: fc.nat(),
    value: fc.nat(255),
    lenBytes: fc.nat(2000),
  }),
  { minLength: 1, maxLength: 4 },
);

function damaged(bytes: Uint8Array, list: { kind: string; at: number; value: number; lenBytes: number }[]): Uint8Array {
  for (const { kind, at: where, value, lenBytes } of list) {
    const at = where % (bytes.length + 1);
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
    if (kind === 'flip')
      bytes = concat(
        before,
        after.subarray(0, 1).map((byte) => byte ^ (value || 1)),
        after.subarray(1),
      );
    if (kind === 'cut') bytes = concat(before, after.subarray(lenBytes));
    if (kind === 'insert') bytes = concat(before, pattern(lenBytes, value), after);
    if (kind === 'repeat') bytes = concat(before, bytes.subarray(Math.max(0, at - lenBytes), at), after);
  }
  return bytes;
}

describe('a hostile peer', () => {
  test.each([true, false])(
    'a stream that is damaged, CRC %s: nothing is thrown, nothing beside the regions is touched',
    (withCrc) => {
      fc.assert(
        fc.property(steps, damage, (list, wrong) => {
          const target = new Target(withCrc);
          target.give(damaged(recorded(list, withCrc), wrong));
          target.check();
        }),
        { numRuns: 80 },
      );
    },
  );

  test('an FPDU with any bit wrong touches no memory, and ends the stream', () => {
    fc.assert(
      fc.property(lengths, fc.nat(), fc.nat(7), (lenBytes, where, bit) => {
        const bytes = recorded([{ kind: 'write', at: 0, lenBytes: Math.min(1400, lenBytes) }], true);
        // A length that is made longer waits for what does not come.
        bytes[2 + (where % (bytes.length - 2))] ^= 1 << bit;
        const target = new Target(true);
        target.give(bytes);
        expect(target.nic.end).toBeDefined();
        expect(target.memory.every((byte) => byte === 0)).toBe(true);
      }),
      { numRuns: 100 },
    );
  });

  test('segments of any header and length, one after another', () => {
    const header = fc.record({
      control: fc.constantFrom(0xc1, 0x81, 0x41, 0x01, 0xc2, 0x40),
      opcode: fc.nat(15),
      words: fc.array(fc.oneof(fc.nat(4), fc.constantFrom(STAG, BASE, SINK), fc.nat(0xffff_ffff)), {
        minLength: 4,
        maxLength: 4,
      }),
      lenBytes: fc.oneof(fc.nat(60), fc.nat(3000)),
    });
    fc.assert(
      fc.property(fc.array(header, { maxLength: 20 }), (headers) => {
        const target = new Target(true);
        for (const { control, opcode, words, lenBytes } of headers) {
          const segment = new Uint8Array(18 + lenBytes);
          segment.set([control, 0x40 | opcode]);
          for (const [i, word] of words.entries()) new DataView(segment.buffer).setUint32(2 + 4 * i, word);
          target.give(fpdu(segment));
        }
        target.check();
      }),
      { numRuns: 150 },
    );
  });

  test('noise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), fc.boolean(), (noise, withCrc) => {
        const target = new Target(withCrc);
        target.give(noise);
        target.check();
      }),
      { numRuns: 100 },
    );
  });
});
