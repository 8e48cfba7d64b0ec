import { expect } from 'vitest';
import { bytesOf } from './breaches.js';
import {
  ATOMIC_REQUEST,
  atomicRequest,
  concat,
  fpdu,
  opcodeOf,
  readRequest,
  SEND,
  SEND_INVALIDATE,
  segmentsOf,
  TAGGED_BYTES,
  tagged,
  UNTAGGED_BYTES,
  untagged,
  WRITE,
} from './segments.js';
import { type Dice, Session } from './session.js';
import { NR_RECVS, type Part, type Victim } from './victim.js';

/**
 * A valid conversation, damaged anywhere: bits flipped with and without a CRC that fits, FPDUs dropped, doubled, swapped, cut and inserted. What may have been written is what
 * intact WRITEs, SENDs and atomics in it say; everything else must be as it was.
 */

const WRITABLE = ['rw', 'wo', 'spare'] as const;

export async function scramble(victim: Victim, next: Dice): Promise<void> {
  const peer = await victim.connect();
  const session = new Session(victim, peer, next);
  const disturbance = victim.disturb(next);
  const frames = Array.from({ length: 3 + next(10) }, () => fpdu(randomSegment(session)));
  for (let n = 1 + next(3); n > 0; n--) damage(frames, next);
  const all = concat(...frames);
  const bytes = next(4) === 0 ? all.subarray(0, next(all.length + 1)) : all;
  session.sendBytes(bytes);
  const resets = next(4) === 0;
  if (resets) {
    await victim.world.turns(next(20));
    peer.destroy();
  } else peer.end();
  const statuses = await victim.failed();
  await disturbance.stop();
  expect(statuses).toHaveLength(NR_RECVS);
  await compare(victim, segmentsOf(bytes));
  await victim.renew();
  await victim.check();
}

function randomSegment(session: Session): Uint8Array {
  const { next } = session;
  const part = WRITABLE[next(3)]!;
  const source = session.at(part, 8 * next(1000));
  const payload = Uint8Array.from({ length: 1 + next(next(4) === 0 ? 9000 : 200) }, () => next(256));
  switch (next(6)) {
    case 0:
      return readRequest(session.readMsn++, source, next(3000));
    case 1:
      return atomicRequest(session.readMsn++, source, BigInt(next(1000)), [0, 1, 2][next(3)]);
    case 2:
      return untagged({ opcode: SEND, msn: session.sendMsn++, payload: payload.subarray(0, 1 + next(200)) });
    case 3:
      if (next(4) > 0) break;
      return untagged({ opcode: SEND_INVALIDATE, msn: session.sendMsn++, invalidate: session.at('spare', 0).stag });
  }
  return tagged({ ...source, payload, last: next(8) > 0 });
}

function damage(frames: Uint8Array[], next: Dice): void {
  const at = next(frames.length);
  const frame = frames[at]!;
  const kinds: (() => void)[] = [
    () => void frames.splice(at, 1, flipped(frame, next(frame.length), next)),
    // In the header, where it means most, with a CRC that fits.
    () => void frames.splice(at, 1, refitted(flipped(frame, 2 + next(Math.min(54, frame.length - 6)), next))),
    () => void frames.splice(at, 1, refitted(flipped(frame, 2 + next(frame.length - 6), next))),
    () => void (frames.length > 1 && frames.splice(at, 1)),
    () => void frames.splice(next(frames.length + 1), 0, frame),
    () => void frames.push(...frames.splice(at, 1)),
    () =>
      void frames.splice(
        at,
        0,
        Uint8Array.from({ length: next(60) }, () => next(256)),
      ),
    () => void frames.splice(at, 1, frame.subarray(0, next(frame.length))),
  ];
  kinds[next(kinds.length)]!();
  if (frames.length === 0) frames.push(frame);
}

function flipped(frame: Uint8Array, at: number, next: Dice): Uint8Array {
  const bytes = Uint8Array.from(frame);
  if (bytes.length > 0) bytes[at % bytes.length]! ^= 1 << next(8);
  return bytes;
}

/** The same segment with a right CRC. */
function refitted(frame: Uint8Array): Uint8Array {
  if (frame.length < 8) return frame;
  return bytesOf([frame.subarray(2, Math.min(frame.length - 4, 2 + ((frame[0]! << 8) | frame[1]!)))]);
}

/** What intact messages may have written, by the byte of the mapping at which it begins. `any`: the value is not known. */
interface Run {
  readonly at: number;
  readonly bytes: Uint8Array;
  readonly any: boolean;
}

async function compare(victim: Victim, segments: readonly Uint8Array[]): Promise<void> {
  const memory = await victim.memory();
  const runs = segments.flatMap((segment) => runsOf(victim, segment));
  for (let at = 0; at < memory.length; at++) {
    if (memory[at] === victim.shadow[at]) continue;
    const said = runs.some((run) => {
      const byte = run.bytes[at - run.at];
      return byte !== undefined && (run.any || byte === memory[at]);
    });
    if (!said) throw new Error(`byte ${at} of the mapping was changed, and no message says so`);
  }
  victim.shadow.set(memory);
}

function runsOf(victim: Victim, segment: Uint8Array): Run[] {
  if (segment.length < TAGGED_BYTES) return [];
  const view = new DataView(segment.buffer, segment.byteOffset, segment.length);
  if ((segment[0]! & 0x80) !== 0) {
    const bytes = segment.subarray(TAGGED_BYTES);
    return opcodeOf(segment) === WRITE ? runAt(victim, view.getUint32(2), view.getBigUint64(6), bytes, false) : [];
  }
  if (segment.length < UNTAGGED_BYTES) return [];
  const opcode = opcodeOf(segment);
  if (opcode >= SEND && opcode < SEND + 4) {
    const { offset, length } = victim.places.recv;
    return [{ at: offset, bytes: new Uint8Array(length), any: true }];
  }
  if (opcode !== ATOMIC_REQUEST || segment.length < UNTAGGED_BYTES + 20) return [];
  const [stag, to] = [view.getUint32(UNTAGGED_BYTES + 8), view.getBigUint64(UNTAGGED_BYTES + 12)];
  return runAt(victim, stag, to, new Uint8Array(8), true);
}

/** Where a key names a region that may be written, and the bytes lie in it. */
function runAt(victim: Victim, stag: number, to: bigint, bytes: Uint8Array, any: boolean): Run[] {
  const parts: readonly Part[] = WRITABLE;
  return parts.flatMap((part) => {
    const { va, length, offset } = victim.places[part];
    const start = Number(to) - va;
    if (victim.keyOf(part) !== stag || start < 0 || start + bytes.length > length) return [];
    return [{ at: offset + start, bytes, any }];
  });
}
