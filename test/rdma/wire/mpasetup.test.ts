import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  encodeMpaFrame,
  MPA_DEPTH_NONE,
  type MpaFrame,
  MpaFrameReader,
  type MpaOffer,
  mpaAccept,
  mpaFinish,
  mpaReject,
  mpaRequest,
} from '../../../src/rdma/wire/index.js';
import { concat, hex } from './bytes.js';

const KEY = { request: hex('4d504120494420526571204672616d65'), reply: hex('4d504120494420526570204672616d65') };
const OFFER: MpaOffer = { ird: 8, ord: 16, crc: true, privateData: hex('abcd') };

function parse(kind: MpaFrame['kind'], bytes: Uint8Array): MpaFrame {
  const reader = new MpaFrameReader(kind);
  expect(reader.receive(bytes, 0, bytes.length)).toBe(bytes.length);
  return reader.frame!;
}

const frames = fc.record({
  kind: fc.constantFrom('request' as const, 'reply' as const),
  revision: fc.constant(2),
  markers: fc.boolean(),
  crc: fc.boolean(),
  reject: fc.boolean(),
  enhanced: fc.option(
    fc.record({
      ird: fc.nat(MPA_DEPTH_NONE),
      ord: fc.nat(MPA_DEPTH_NONE),
      peerToPeer: fc.boolean(),
      rtrSend: fc.boolean(),
      rtrWrite: fc.boolean(),
      rtrRead: fc.boolean(),
    }),
    { nil: undefined },
  ),
  privateData: fc.uint8Array({ maxLength: 508 }),
});

describe('frames', () => {
  test('a request of revision 2, byte by byte', () => {
    const wanted = concat(KEY.request, hex('50 02 0006 8008 c010 abcd'));
    expect(mpaRequest(OFFER)).toEqual(wanted);
    expect(parse('request', wanted)).toEqual({
      kind: 'request',
      revision: 2,
      markers: false,
      crc: true,
      reject: false,
      enhanced: { ird: 8, ord: 16, peerToPeer: true, rtrSend: false, rtrWrite: true, rtrRead: true },
      privateData: hex('abcd'),
    });
  });

  test('a request of revision 1', () => {
    expect(mpaRequest({ ...OFFER, crc: false, revision: 1 })).toEqual(concat(KEY.request, hex('00 01 0002 abcd')));
  });

  test('any frame, cut anywhere, with anything behind it', () => {
    fc.assert(
      fc.property(frames, fc.nat(600), (frame, cut) => {
        const bytes = concat(encodeMpaFrame(frame), hex('c140'));
        const end = bytes.length - 2;
        const reader = new MpaFrameReader(frame.kind);
        const first = reader.receive(bytes, 0, Math.min(cut, bytes.length));
        expect(reader.receive(bytes, first, bytes.length)).toBe(end);
        expect(reader.frame).toEqual(frame);
        expect(reader.receive(bytes, end, bytes.length)).toBe(end);
      }),
      { numRuns: 100 },
    );
  });

  test.each([
    ['no MPA request frame', concat(KEY.reply, hex('00 01 0000'))],
    ['MPA revision 3', concat(KEY.request, hex('00 03 0000'))],
    ['MPA revision 0', concat(KEY.request, hex('00 00 0000'))],
    ['513 bytes of private data', concat(KEY.request, hex('00 01 0201'))],
    ['no IRD and ORD', concat(KEY.request, hex('10 02 0003 000000'))],
  ])('%s: an error as soon as it can be told', (error, bytes) => {
    const reader = new MpaFrameReader('request');
    reader.receive(bytes, 0, bytes.length);
    expect(reader.frame).toBeUndefined();
    expect(reader.error).toContain(error);
  });

  test('anything at all: a frame, an error, or more to come, and never more than a frame is kept', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 700 }), fc.nat(20), (noise, keep) => {
        const reader = new MpaFrameReader('request');
        const bytes = concat(KEY.request.subarray(0, keep), noise);
        expect(reader.receive(bytes, 0, bytes.length)).toBeLessThanOrEqual(532);
      }),
    );
  });
});

describe('negotiation', () => {
  const request = (offer: Partial<MpaOffer> = {}) => parse('request', mpaRequest({ ...OFFER, ...offer }));
  const finish = (mine: Partial<MpaOffer>, theirs: Partial<MpaOffer>) => {
    const { reply, agreed } = mpaAccept(request(mine), { ...OFFER, ...theirs });
    return [mpaFinish({ ...OFFER, ...mine }, parse('reply', reply)), agreed] as const;
  };

  test('the depths are the lesser of what one makes and the other takes', () => {
    const [initiator, responder] = finish({ ird: 8, ord: 16 }, { ird: 4, ord: 32 });
    expect(responder).toEqual({ crc: true, ird: 4, ord: 8, rtr: 'write' });
    expect(initiator).toEqual({ kind: 'agreed', agreed: { crc: true, ird: 8, ord: 4, rtr: 'write' } });
  });

  test.each([
    [false, false, false],
    [true, false, true],
    [false, true, true],
  ])('CRC is used if either wants it: %s and %s make %s', (mine, theirs, used) => {
    const [initiator, responder] = finish({ crc: mine }, { crc: theirs });
    expect(responder!.crc).toBe(used);
    expect(initiator).toMatchObject({ agreed: { crc: used } });
  });

  test.each([
    [[], 'none'],
    [['read'], 'read'],
    [['write'], 'write'],
    [['read', 'write'], 'write'],
  ] as const)('RTR %j: %s', (rtr, chosen) => {
    const [initiator, responder] = finish({ rtr }, {});
    expect(responder!.rtr).toBe(chosen);
    expect(initiator).toMatchObject({ kind: 'agreed', agreed: { rtr: chosen } });
  });

  test('revision 1 negotiates nothing', () => {
    const [initiator, responder] = finish({ revision: 1, ird: 3, ord: 5 }, { ird: 7, ord: 9 });
    expect(responder).toMatchObject({ ird: 7, ord: 9, rtr: 'none' });
    expect(initiator).toMatchObject({ agreed: { ird: 3, ord: 5, rtr: 'none' } });
  });

  test('a depth that is not negotiated leaves each side its own', () => {
    const none = { ...request(), enhanced: { ...request().enhanced!, ird: MPA_DEPTH_NONE, ord: MPA_DEPTH_NONE } };
    expect(mpaAccept(none, OFFER).agreed).toMatchObject({ ird: 8, ord: 16 });
  });

  test('markers are refused, by either side', () => {
    const { reply, agreed } = mpaAccept({ ...request(), markers: true }, OFFER);
    expect(agreed).toBeUndefined();
    expect(parse('reply', reply).reject).toBe(true);
    expect(mpaFinish(OFFER, { ...parse('reply', mpaAccept(request(), OFFER).reply), markers: true })).toMatchObject({
      code: 0x2004,
    });
  });

  test('a rejection carries its private data', () => {
    const reply = parse('reply', mpaReject(request(), hex('0102')));
    expect(mpaFinish(OFFER, reply)).toEqual({ kind: 'rejected', privateData: hex('0102') });
  });

  test.each([
    ['an ORD above our IRD', { ord: 9 }, 0x2006],
    ['no RTR that was asked for', { rtrWrite: false, rtrRead: false }, 0x2007],
  ])('%s fails', (_, words, code) => {
    const reply = parse('reply', mpaAccept(request(), OFFER).reply);
    expect(mpaFinish(OFFER, { ...reply, enhanced: { ...reply.enhanced!, ...words } })).toMatchObject({
      kind: 'failed',
      code,
    });
  });

  test('a responder that leaves out the CRC that was asked for', () => {
    const reply = parse('reply', mpaAccept(request(), OFFER).reply);
    expect(mpaFinish(OFFER, { ...reply, crc: false })).toMatchObject({ kind: 'failed', code: 0x2004 });
  });
});
