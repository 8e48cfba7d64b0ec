import { PAGE_SIZE } from '../../../src/mm/index.js';
import {
  ATOMIC_RESPONSE,
  atomicRequest,
  concat,
  fpdu,
  IMMEDIATE,
  READ_RESPONSE,
  readRequest,
  SEND,
  SEND_INVALIDATE,
  tagged,
  untagged,
} from './segments.js';
import type { Session } from './session.js';
import { IRD, NR_RECVS, type Part, RECV_BYTES } from './victim.js';

/**
 * What a peer may do against the protocol, or against the rights it was given, each with the code of the Terminate message that the RFCs have for it: RFC 5040 section 4.8,
 * RFC 5041 section 8.2, RFC 5044 section 8.
 */
export interface Breach {
  readonly name: string;
  /** Layer, type and code; undefined: no Terminate message. */
  readonly code: number | undefined;
  /** What is sent: segments, the last of which is the one that is wrong, or bytes where it is no segment. */
  make(session: Session): Uint8Array[] | Uint8Array;
  /** Whether the message quotes the READ request (R). */
  readonly quotesRequest?: true;
  /** All in one piece, but for what TCP does. */
  readonly uncut?: true;
  /** It is looked at when it is answered: what follows it may have been done by then. */
  readonly answered?: true;
  /** A receive that does not end as flushed: IBV_WC_LOC_LEN_ERR. */
  readonly lengthError?: true;
}

const payload = (length: number): Uint8Array => new Uint8Array(length).fill(0xee);

type Place = [part: Part, offset: (length: number) => number, length?: number];

const write = (name: string, code: number, [part, offset, length = 100]: Place, more = {}): Breach => ({
  name: `a WRITE ${name}`,
  code,
  make: (s) => [tagged({ ...s.at(part, offset(s.victim.places[part].length)), payload: payload(length), ...more })],
});

const read = (name: string, code: number, [part, offset, length = 100]: Place, more = {}): Breach => ({
  name: `a READ ${name}`,
  code,
  quotesRequest: true,
  answered: true,
  make: (s) => {
    const source = { ...s.at(part, offset(s.victim.places[part].length)), ...more };
    return [readRequest(s.readMsn++, source, length)];
  },
});

const START = (): number => 0;
const WRONG_KEY = { stag: 0x5eed_0bad };
const LAST_TO = { to: 2n ** 64n - 50n };

const WRITES: Breach[] = [
  write('with a key that nobody gave out', 0x1100, ['rw', START], WRONG_KEY),
  write('with key 0', 0x1100, ['rw', START], { stag: 0 }),
  write('with the key of a region that was deregistered', 0x1100, ['stale', START]),
  write('from a byte before the region on', 0x1101, ['rw', () => -1]),
  write('to a byte behind the region', 0x1101, ['rw', (length) => length - 99]),
  write('at another region, by this key', 0x1101, ['rw', (length) => length + 4 * PAGE_SIZE]),
  write('at 2^63', 0x1101, ['rw', START], { to: 2n ** 63n }),
  write('whose TO wraps', 0x1103, ['rw', START], LAST_TO),
  write('to another protection domain', 0x1102, ['foreign', START]),
  write('to a region that is for reading', 0x0102, ['ro', START]),
  write('to a region that is not for the network', 0x0102, ['recv', START]),
  {
    name: 'a WRITE of the longest FPDU, over the end of the region',
    code: 0x1101,
    make: (s) =>
      [
        tagged({ ...s.at('rw', 0), payload: payload(65_521) }),
        tagged({ ...s.at('rw', 20_000), payload: payload(65_521) }),
      ].slice(1),
  },
  {
    name: 'a WRITE to pages that are not mapped',
    code: 0x0102,
    make: ({ victim: { hole } }) => [tagged({ stag: hole.rkey, to: BigInt(hole.addr), payload: payload(5000) })],
  },
  {
    name: 'a WRITE whose second segment has another key',
    code: 0x1100,
    make: (s) => [tagged({ ...s.at('wo', 0), last: false }), tagged({ ...s.at('spare', 0), payload: payload(10) })],
  },
  {
    name: 'a WRITE whose second segment leaves a gap',
    code: 0x1101,
    make: (s) => [tagged({ ...s.at('wo', 0), last: false }), tagged({ ...s.at('wo', 1), payload: payload(10) })],
  },
  {
    name: 'a READ response within a WRITE',
    code: 0x0206,
    make: (s) => [
      tagged({ ...s.at('wo', 0), last: false }),
      tagged({ ...s.at('wo', 0), opcode: READ_RESPONSE, payload: payload(10) }),
    ],
  },
];

const READS: Breach[] = [
  read('with a key that nobody gave out', 0x0100, ['rw', START], WRONG_KEY),
  read('with the key of a region that was deregistered', 0x0100, ['stale', START]),
  read('from a byte before the region on', 0x0101, ['rw', () => -1]),
  read('to a byte behind the region', 0x0101, ['rw', (length) => length - 99]),
  read('of 4 GiB', 0x0101, ['rw', START, 2 ** 32 - 1]),
  read('whose TO wraps', 0x0104, ['rw', START], LAST_TO),
  read('of another protection domain', 0x0103, ['foreign', START]),
  read('of a region that is for writing', 0x0102, ['wo', START]),
  read('of a region that is not for the network', 0x0102, ['recv', START]),
  {
    name: 'a READ of pages that are not mapped',
    code: 0x0102,
    quotesRequest: true,
    answered: true,
    make: (s) => [readRequest(s.readMsn++, { stag: s.victim.hole.rkey, to: BigInt(s.victim.hole.addr) }, 10)],
  },
  {
    name: 'more READs than were agreed on',
    code: 0x1202,
    uncut: true,
    // TCP may cut these once.
    make: (s) => Array.from({ length: 2 * IRD + 2 }, () => readRequest(s.readMsn++, s.at('rw', 0), 0)),
  },
  {
    name: 'a READ request that is too short',
    code: 0x02ff,
    make: (s) => [untagged({ opcode: 1, qn: 1, msn: s.readMsn, payload: payload(27) })],
  },
  {
    name: 'a READ request that is too long',
    code: 0x1205,
    make: (s) => [untagged({ opcode: 1, qn: 1, msn: s.readMsn, payload: payload(29) })],
  },
  {
    name: 'an atomic without the right',
    code: 0x0102,
    answered: true,
    make: (s) => [atomicRequest(s.readMsn++, s.at('ro', 0), 1n)],
  },
  {
    name: 'an atomic with a wrong key',
    code: 0x0100,
    answered: true,
    make: (s) => [atomicRequest(s.readMsn++, { ...s.at('rw', 0), ...WRONG_KEY }, 1n)],
  },
  {
    name: 'an atomic behind the region',
    code: 0x0101,
    answered: true,
    make: (s) => [atomicRequest(s.readMsn++, s.at('rw', s.victim.places.rw.length), 1n)],
  },
  {
    name: 'an atomic that is not aligned',
    code: 0x0207,
    make: (s) => [atomicRequest(s.readMsn++, s.at('rw', 4), 1n)],
  },
  {
    name: 'an atomic operation that there is not',
    code: 0x0206,
    make: (s) => [atomicRequest(s.readMsn++, s.at('rw', 0), 1n, 3)],
  },
];

const MESSAGES: Breach[] = [
  {
    name: 'a SEND that is too long for its receive',
    code: 0x1205,
    lengthError: true,
    make: (s) => [untagged({ msn: s.sendMsn, payload: payload(RECV_BYTES + 1) })],
  },
  {
    name: 'a SEND that grows too long',
    code: 0x1205,
    lengthError: true,
    make: (s) => [
      untagged({ msn: s.sendMsn, last: false }),
      untagged({ msn: s.sendMsn, payload: payload(RECV_BYTES + 1) }),
    ],
  },
  {
    name: 'a SEND that nobody has a receive for',
    code: 0x1202,
    make: (s) => {
      for (let n = 0; n < NR_RECVS; n++) s.sendMessage();
      return [untagged({ msn: s.sendMsn, payload: payload(1) })];
    },
  },
  {
    name: 'a SEND whose number was before',
    code: 0x1203,
    make: (s) => {
      s.sendMessage();
      return [untagged({ msn: s.sendMsn - 1, payload: payload(10) })];
    },
  },
  {
    name: 'a SEND whose number is yet to come',
    code: 0x1203,
    make: (s) => [untagged({ msn: s.sendMsn + 1, payload: payload(10) })],
  },
  {
    name: 'a READ request whose number was before',
    code: 0x1203,
    make: (s) => [readRequest(s.readMsn - 1, s.at('rw', 0), 1)],
  },
  {
    name: 'a SEND that begins in the middle',
    code: 0x1204,
    make: (s) => [untagged({ msn: s.sendMsn, mo: 8, payload: payload(10) })],
  },
  {
    name: 'a SEND whose second segment overlaps the first',
    code: 0x1204,
    make: (s) => [
      untagged({ msn: s.sendMsn, last: false }),
      untagged({ msn: s.sendMsn, mo: 2 ** 32 - 1, payload: payload(10) }),
    ],
  },
  {
    name: 'another kind of SEND within a SEND',
    code: 0x0206,
    make: (s) => [
      untagged({ msn: s.sendMsn, last: false }),
      untagged({ msn: s.sendMsn, opcode: SEND_INVALIDATE, invalidate: s.victim.mrs.spare.rkey }),
    ],
  },
  {
    name: 'a SEND on a queue that there is not',
    code: 0x1201,
    make: (s) => [untagged({ msn: s.sendMsn, qn: 9, payload: payload(10) })],
  },
  {
    name: 'a SEND on the queue of READ requests',
    code: 0x1201,
    make: (s) => [untagged({ msn: s.sendMsn, qn: 1, payload: payload(10) })],
  },
  {
    name: 'immediate data that are too short',
    code: 0x02ff,
    make: (s) => [untagged({ msn: s.sendMsn, opcode: IMMEDIATE, payload: payload(4) })],
  },
  {
    name: 'immediate data that are too long',
    code: 0x1205,
    make: (s) => [untagged({ msn: s.sendMsn, opcode: IMMEDIATE, payload: payload(9) })],
  },
  {
    name: 'a SEND that invalidates a key that nobody gave out',
    code: 0x0209,
    make: (s) => [untagged({ msn: s.sendMsn, opcode: SEND_INVALIDATE, invalidate: 0x5eed_0bad })],
  },
  {
    name: "a SEND that invalidates another protection domain's key",
    code: 0x0109,
    make: (s) => [untagged({ msn: s.sendMsn, opcode: SEND_INVALIDATE, invalidate: s.victim.mrs.foreign.rkey })],
  },
  {
    name: 'a SEND that invalidates a region that is not for the network',
    code: 0x0109,
    make: (s) => [untagged({ msn: s.sendMsn, opcode: SEND_INVALIDATE, invalidate: s.victim.mrs.recv.rkey })],
  },
  {
    name: 'a WRITE after its key was invalidated',
    code: 0x1100,
    make: (s) => [
      untagged({ msn: s.sendMsn++, opcode: SEND_INVALIDATE, invalidate: s.victim.mrs.spare.rkey }),
      tagged({ ...s.at('spare', 0), payload: payload(100) }),
    ],
  },
  {
    name: 'a READ after its key was invalidated',
    code: 0x0100,
    quotesRequest: true,
    answered: true,
    make: (s) => [
      untagged({ msn: s.sendMsn++, opcode: SEND_INVALIDATE, invalidate: s.victim.mrs.spare.rkey }),
      readRequest(s.readMsn++, s.at('spare', 0), 100),
    ],
  },
];

/** With everything right but the CRC, which has one bit wrong. */
function badCrc(segment: Uint8Array): Uint8Array {
  const bytes = fpdu(segment);
  bytes[bytes.length - 2]! ^= 4;
  return bytes;
}

const FRAMES: Breach[] = [
  { name: 'a wrong CRC', code: 0x2002, make: (s) => badCrc(tagged({ ...s.at('rw', 0), payload: payload(50) })) },
  { name: 'an FPDU of nothing', code: 0x2003, make: () => fpdu(new Uint8Array(0)) },
  {
    name: 'an FPDU that is too short for its header',
    code: 0x2003,
    make: (s) => fpdu(untagged({ msn: s.sendMsn }).subarray(0, 17)),
  },
  {
    name: 'a tagged segment of another version of DDP',
    code: 0x1104,
    make: (s) => [tagged({ ...s.at('rw', 0), ddpVersion: 2, payload: payload(9) })],
  },
  {
    name: 'an untagged segment of another version of DDP',
    code: 0x1206,
    make: (s) => [untagged({ msn: s.sendMsn, ddpVersion: 0 })],
  },
  {
    name: 'another version of RDMAP',
    code: 0x0205,
    make: (s) => [tagged({ ...s.at('rw', 0), rdmapVersion: 2, payload: payload(9) })],
  },
  { name: 'an opcode that there is not', code: 0x0206, make: (s) => [untagged({ msn: s.sendMsn, opcode: 12 })] },
  {
    name: 'a tagged SEND',
    code: 0x0206,
    make: (s) => [tagged({ ...s.at('rw', 0), opcode: SEND, payload: payload(9) })],
  },
  {
    name: 'an untagged WRITE',
    code: 0x0206,
    make: (s) => [untagged({ msn: s.sendMsn, opcode: 0, payload: payload(9) })],
  },
  {
    name: 'a READ response that nobody asked for',
    code: 0x0206,
    make: (s) => [tagged({ ...s.at('rw', 0), opcode: READ_RESPONSE, payload: payload(9) })],
  },
  {
    name: 'an atomic response that nobody asked for',
    code: 0x0206,
    make: () => [untagged({ opcode: ATOMIC_RESPONSE, qn: 3, msn: 1, payload: payload(12) })],
  },
  {
    name: 'a Terminate message',
    code: undefined,
    make: () => [untagged({ opcode: 7, qn: 2, msn: 1, payload: Uint8Array.of(0x11, 0, 0, 0) })],
  },
  {
    name: 'a Terminate message of one byte',
    code: undefined,
    make: () => [untagged({ opcode: 7, qn: 2, msn: 1, payload: Uint8Array.of(0x11) })],
  },
  {
    name: 'half an FPDU, and the end',
    code: undefined,
    make: (s) => fpdu(tagged({ ...s.at('rw', 0), payload: payload(90) })).subarray(0, 60),
  },
];

export const BREACHES: readonly Breach[] = [...WRITES, ...READS, ...MESSAGES, ...FRAMES];

/** Bytes for TCP. */
export function bytesOf(made: Uint8Array[] | Uint8Array): Uint8Array {
  return Array.isArray(made) ? concat(...made.map((segment) => fpdu(segment))) : made;
}
