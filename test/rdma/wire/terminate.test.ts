import { describe, expect, test } from 'vitest';
import { createCrc32c } from '../../../src/rdma/wire/crc32c.js';
import { RDMAP_SEND, RdmaStream, refuse, type StreamOptions } from '../../../src/rdma/wire/index.js';
import { concat, fpdu, hex, pattern } from './bytes.js';
import { atomic, FlatNic, read } from './flatnic.js';

/**
 * Every way in which a peer can be wrong: the code that it is told, what is quoted to it, and that nothing of it has reached memory.
 * Segments are written as the RFCs draw them.
 */

class Victim {
  readonly nic = new FlatNic();
  readonly memory = this.nic.region(7, 0x1000, new Uint8Array(64));
  readonly buffer = new Uint8Array(16);
  private readonly stream: RdmaStream;

  constructor(options: Partial<StreamOptions> = {}) {
    this.nic.region(8, 0x1000, new Uint8Array(64), false);
    this.stream = new RdmaStream(this.nic, { initiator: true, crc: createCrc32c(), ird: 2, ord: 2, ...options });
  }

  give(bytes: Uint8Array): void {
    expect(this.stream.receive(bytes, 0, bytes.length)).toBe(bytes.length);
  }

  sent(): Uint8Array {
    const out = new Uint8Array(100_000);
    return out.slice(0, this.stream.transmit(out, 0, out.length));
  }

  get touched(): boolean {
    return this.memory.some((byte) => byte !== 0) || this.buffer.some((byte) => byte !== 0);
  }
}

/** The Terminate message with that control field, and what it quotes. */
const terminate = (control: string, quoted = '') =>
  fpdu(hex(`41 47 00000000 00000002 00000001 00000000 ${control} ${quoted}`));

const TAGGED = 'c1 40 00000007 00000000 00001000';
const SEND1 = '41 43 00000000 00000000 00000001 00000000';
const READ1 = '41 41 00000000 00000001 00000001 00000000';
const ATOMIC1 = '41 4a 00000000 00000001 00000001 00000000';
const zeros = (lenBytes: number) => '00'.repeat(lenBytes);

describe('one segment that is wrong', () => {
  test.each([
    ['DDP version of a tagged segment', 'c2 40 00000007 00000000 00001000 aa', '1104'],
    ['DDP version of an untagged segment', '40 43 00000000 00000000 00000001 00000000 aa', '1206'],
    ['RDMAP version', 'c1 80 00000007 00000000 00001000 aa', '0205'],
    ['an unknown opcode, tagged', 'c1 4c 00000007 00000000 00001000 aa', '0206'],
    ['an unknown opcode, untagged', '41 4f 00000000 00000000 00000001 00000000 aa', '0206'],
    ['a SEND that is tagged', 'c1 43 00000007 00000000 00001000 aa', '0206'],
    ['a WRITE that is untagged', '41 40 00000000 00000000 00000001 00000000 aa', '0206'],
    ['a READ response that nobody asked for', 'c1 42 00000007 00000000 00001000 aa', '0206'],
    ['an atomic response that nobody asked for', `41 4b 00000000 00000003 00000001 00000000 ${zeros(12)}`, '0206'],
    ['a queue that there is not', '41 43 00000000 00000004 00000001 00000000 aa', '1201'],
    ['a SEND on the queue of READs', '41 43 00000000 00000001 00000001 00000000 aa', '1201'],
    ['a READ request on the queue of SENDs', `41 41 00000000 00000000 00000001 00000000 ${zeros(28)}`, '1201'],
    ['a SEND from the future', '41 43 00000000 00000000 00000002 00000000 aa', '1203'],
    ['a SEND from before the first', '41 43 00000000 00000000 00000000 00000000 aa', '1203'],
    ['a SEND that begins in its middle', '41 43 00000000 00000000 00000001 00000004 aa', '1204'],
    ['a SEND too long for its receive', `${SEND1} ${'aa'.repeat(17)}`, '1205'],
    ['a READ request that is too long', `${READ1} ${zeros(29)}`, '1205'],
    ['a READ request that is too short', `${READ1} ${zeros(27)}`, '02ff'],
    ['a READ request that goes on', `01 41 00000000 00000001 00000001 00000000 ${zeros(28)}`, '02ff'],
    ['a READ request with an MO', `41 41 00000000 00000001 00000001 00000001 ${zeros(28)}`, '1204'],
    ['a READ request out of order', `41 41 00000000 00000001 00000002 00000000 ${zeros(28)}`, '1203'],
    ['an atomic that is too short', `${ATOMIC1} ${zeros(51)}`, '02ff'],
    ['an atomic that is none', `${ATOMIC1} 00000003 ${zeros(48)}`, '0206'],
    ['an atomic that is not aligned', `${ATOMIC1} 00000000 00000000 00000007 00000000 00001004 ${zeros(32)}`, '0207'],
    ['immediate data that is too long', `41 48 00000000 00000000 00000001 00000000 ${zeros(9)}`, '1205'],
    ['immediate data that is too short', `41 48 00000000 00000000 00000001 00000000 ${zeros(7)}`, '02ff'],
    ['immediate data that goes on', `01 48 00000000 00000000 00000001 00000000 ${zeros(8)}`, '02ff'],
    ['a WRITE to a STag that there is not', 'c1 40 00000009 00000000 00001000 aa', '1100'],
    ['a WRITE before its region', 'c1 40 00000007 00000000 00000fff aa', '1101'],
    ['a WRITE beyond its region', 'c1 40 00000007 00000000 0000103f aabb', '1101'],
    ['a WRITE far beyond', 'c1 40 00000007 80000000 00001000 aabb', '1101'],
    ['a WRITE that wraps around', 'c1 40 00000007 ffffffff ffffffff aabb', '1103'],
    ['a SEND that invalidates what it may not', '41 44 00000099 00000000 00000001 00000000', '0209'],
  ])('%s', (_, segment, code) => {
    const victim = new Victim();
    victim.nic.receives.push(victim.buffer);
    victim.give(fpdu(hex(segment)));
    expect(victim.nic.end).toMatchObject({ code: Number.parseInt(code, 16), byPeer: false });
    const header = hex(segment).subarray(0, Number.parseInt(segment, 16) & 0x80 ? 14 : 18);
    const lenBytes = hex(segment).length.toString(16).padStart(4, '0');
    expect(victim.sent()).toEqual(terminate(`${code} c000`, `${lenBytes} ${Buffer.from(header).toString('hex')}`));
    expect(victim.touched).toBe(false);
  });

  test('a SEND for which no receive is posted', () => {
    const victim = new Victim();
    victim.give(fpdu(hex(`${SEND1} aa`)));
    expect(victim.sent()).toEqual(terminate('1202 c000', `0013 ${SEND1}`));
  });
});

describe('READs of the peer', () => {
  const body = (source: string, lenBytes: string) => `00000001 00000000 00000000 ${lenBytes} ${source}`;
  test.each([
    ['a STag that there is not', body('00000009 00000000 00001000', '00000001'), '0100'],
    ['beyond the region', body('00000007 00000000 00001000', '00000041'), '0101'],
    ['a region without the right', body('00000008 00000000 00001000', '00000001'), '0102'],
    ['a source that wraps around', body('00000007 ffffffff ffffffff', '00000002'), '0104'],
    ['a sink that wraps around', `00000001 ffffffff ffffffff 00000002 00000007 00000000 00001000`, '0104'],
  ])('%s: the header and the request are quoted', (_, request, code) => {
    const victim = new Victim();
    victim.give(fpdu(hex(`${READ1} ${request}`)));
    expect(victim.sent()).toEqual(terminate(`${code} e000`, `002e ${READ1} ${request}`));
    expect(victim.nic.end?.code).toBe(Number.parseInt(code, 16));
  });

  test('of no bytes are not looked at', () => {
    const victim = new Victim();
    victim.give(fpdu(hex(`${READ1} ${body('00000009 ffffffff ffffffff', '00000000')}`)));
    expect(victim.sent()).toEqual(fpdu(hex('c1 42 00000001 00000000 00000000')));
    expect(victim.nic.end).toBeUndefined();
  });

  test('more than IRD at once', () => {
    const victim = new Victim();
    const request = (msn: number) => fpdu(hex(`41 41 00000000 00000001 0000000${msn} 00000000 ${zeros(28)}`));
    victim.give(concat(request(1), request(2)));
    expect(victim.nic.end).toBeUndefined();
    victim.give(request(3));
    expect(victim.nic.end?.code).toBe(0x1202);
  });

  test('an atomic on a region without the right quotes its header', () => {
    const victim = new Victim();
    const header = hex(ATOMIC1);
    victim.give(fpdu(concat(header, hex(`00000000 00000001 00000008 00000000 00001000 ${zeros(32)}`))));
    expect(victim.sent()).toEqual(terminate('0102 c000', `0046 ${ATOMIC1}`));
  });
});

describe('messages of several segments', () => {
  const twoSegments = (first: string, second: string) => {
    const victim = new Victim();
    victim.nic.receives.push(victim.buffer, victim.buffer);
    victim.give(fpdu(hex(first)));
    expect(victim.nic.end).toBeUndefined();
    victim.give(fpdu(hex(second)));
    return victim.nic.end?.code;
  };
  const SEND_ON = '01 43 00000000 00000000 00000001 00000000 aabb';
  const WRITE_ON = '81 40 00000007 00000000 00001000 aabb';
  test.each([
    ['a SEND with a hole', SEND_ON, '41 43 00000000 00000000 00000001 00000003 cc', 0x1204],
    ['a SEND that overlaps itself', SEND_ON, '41 43 00000000 00000000 00000001 00000001 cc', 0x1204],
    ['a segment of a SEND twice', SEND_ON, SEND_ON, 0x1204],
    ['the next SEND before this one is done', SEND_ON, '41 43 00000000 00000000 00000002 00000000 cc', 0x1203],
    ['another opcode within a SEND', SEND_ON, '41 45 00000000 00000000 00000001 00000002 cc', 0x0206],
    ['a SEND that grows too long', SEND_ON, `41 43 00000000 00000000 00000001 00000002 ${zeros(15)}`, 0x1205],
    ['a SEND twice', `${SEND1} aa`, `${SEND1} aa`, 0x1203],
    ['a WRITE with a hole', WRITE_ON, 'c1 40 00000007 00000000 00001003 cc', 0x1101],
    ['a WRITE that changes its STag', WRITE_ON, 'c1 40 00000008 00000000 00001002 cc', 0x1100],
    ['a READ response within a WRITE', WRITE_ON, 'c1 42 00000007 00000000 00001002 cc', 0x0206],
  ])('%s', (_, first, second, code) => expect(twoSegments(first, second)).toBe(code));

  test('a SEND may come between the segments of a WRITE', () => {
    expect(twoSegments(WRITE_ON, `${SEND1} aa`)).toBeUndefined();
  });
});

describe('responses to our READs', () => {
  const asked = () => {
    const victim = new Victim();
    victim.nic.queue.push(read([1, 0], [7, 0x1000], 4, 33));
    victim.sent();
    return victim;
  };
  test.each([
    ['to another STag', 'c1 42 00000008 00000000 00001000 aabbccdd', 0x1100],
    ['to another place', 'c1 42 00000007 00000000 00001001 aabbccdd', 0x1101],
    ['too long', 'c1 42 00000007 00000000 00001000 aabbccddee', 0x1101],
    ['too short', 'c1 42 00000007 00000000 00001000 aabbcc', 0x1101],
    ['of an atomic', `41 4b 00000000 00000003 00000001 00000000 ${zeros(12)}`, 0x0206],
  ])('%s', (_, segment, code) => {
    const victim = asked();
    victim.give(fpdu(hex(segment)));
    expect(victim.nic.end?.code).toBe(code);
    expect(victim.touched).toBe(false);
    expect(victim.nic.log).not.toContain('read 33');
  });

  test('in two segments, and once only', () => {
    const victim = asked();
    victim.give(fpdu(hex('81 42 00000007 00000000 00001000 aabb')));
    victim.give(fpdu(hex('c1 42 00000007 00000000 00001002 ccdd')));
    expect(victim.nic.log).toContain('read 33');
    victim.give(fpdu(hex('c1 42 00000007 00000000 00001000 aabbccdd')));
    expect(victim.nic.end?.code).toBe(0x0206);
  });

  test('to an atomic: a READ response, another id, or out of order', () => {
    for (const [segment, code] of [
      ['c1 42 00000007 00000000 00001000 aa', 0x0206],
      [`41 4b 00000000 00000003 00000001 00000000 00000002 ${zeros(8)}`, 0x02ff],
      [`41 4b 00000000 00000003 00000002 00000000 00000001 ${zeros(8)}`, 0x1203],
    ] as const) {
      const victim = new Victim();
      victim.nic.queue.push(atomic(0, [1, 0], 1n));
      victim.sent();
      victim.give(fpdu(hex(segment)));
      expect(victim.nic.end?.code).toBe(code);
    }
  });
});

describe('MPA', () => {
  test('a wrong CRC: nothing is looked at, nothing quoted', () => {
    const good = fpdu(hex(`${TAGGED} aabbccdd`));
    for (let at = 2; at < good.length; at++) {
      const victim = new Victim();
      const bad = good.slice();
      bad[at] ^= 1;
      victim.give(bad);
      expect(victim.sent()).toEqual(terminate('2002 0000'));
      expect(victim.touched).toBe(false);
    }
  });

  test.each(['', '81', 'c1 40 00000007 00000000 001000', '41 43 00000000 00000000 00000001 000000'])(
    "an FPDU too short for its header: '%s'",
    (segment) => {
      const victim = new Victim();
      victim.give(fpdu(hex(segment)));
      expect(victim.sent()).toEqual(terminate('2003 0000'));
    },
  );

  test('a responder says so even before it may send', () => {
    const victim = new Victim({ initiator: false });
    victim.give(fpdu(hex(`${TAGGED} aabbccdd`), false));
    expect(victim.sent()).toEqual(terminate('2002 0000'));
  });
});

describe('the owner', () => {
  test('may refuse at any byte of a message', () => {
    const victim = new Victim();
    victim.nic.place = () => refuse(0x1000);
    victim.give(fpdu(hex(`${TAGGED} aabbccdd`)));
    expect(victim.nic.end).toMatchObject({ code: 0x1000, byPeer: false });
  });

  test('may fail to fetch what it sends', () => {
    const victim = new Victim();
    victim.nic.fetch = () => refuse(0x0000);
    victim.nic.queue.push({ opcode: RDMAP_SEND, payload: pattern(10) });
    expect(victim.sent()).toEqual(terminate('0000 0000'));
    expect(victim.nic.log).toEqual([]);
  });
});

describe('Terminate of the peer', () => {
  test.each(['', '01', '0101', '0101 e000', '0101 e000 00', `1100 c000 0010 ${TAGGED}`, `0101 e000 ${zeros(200)}`])(
    "is never answered, however it looks: '%s'",
    (body) => {
      const victim = new Victim();
      victim.give(fpdu(hex(`41 47 00000000 00000002 00000001 00000000 ${body}`)));
      expect(victim.nic.end?.byPeer).toBe(true);
      expect(victim.sent()).toEqual(hex(''));
    },
  );
});
