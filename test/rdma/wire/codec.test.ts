import { describe, expect, test } from 'vitest';
import { createCrc32c } from '../../../src/rdma/wire/crc32c.js';
import {
  ATOMIC_CMP_SWAP,
  RDMAP_IMMEDIATE_SE,
  RDMAP_SEND,
  RDMAP_SEND_SE_INVALIDATE,
  RdmaStream,
  TX_DONE,
  TX_FULL,
  TX_HELD,
  TX_IDLE,
} from '../../../src/rdma/wire/index.js';
import { concat, fpdu, hex, pattern } from './bytes.js';
import { atomic, FlatNic, read, write } from './flatnic.js';

/** Every kind of segment, byte by byte as the RFCs draw it, worked by hand. */

function sender(options: object = {}): { nic: FlatNic; sent: (room?: number) => Uint8Array; stream: RdmaStream } {
  const nic = new FlatNic();
  const stream = new RdmaStream(nic, { initiator: true, crc: createCrc32c(), ird: 4, ord: 4, ...options });
  const out = new Uint8Array(100_000);
  return { nic, stream, sent: (room = out.length) => out.slice(0, stream.transmit(out, 0, room)) };
}

describe('sent', () => {
  test('WRITE: tagged, its TO of 64 bits', () => {
    const { nic, sent } = sender();
    nic.queue.push(write(0x01020304, 0x1122_3344_5566_7788n, hex('aabbcc')));
    expect(sent()).toEqual(fpdu(hex('c1 40 01020304 11223344 55667788 aabbcc')));
  });

  test('WRITE of two segments: the first without L, the second where it ends, across 2^32', () => {
    const { nic, sent } = sender({ segmentBytes: 256 });
    nic.queue.push(write(7, 0xffff_ff80, pattern(300)));
    expect(sent()).toEqual(
      concat(
        fpdu(concat(hex('81 40 00000007 00000000 ffffff80'), pattern(300).subarray(0, 256))),
        fpdu(concat(hex('c1 40 00000007 00000001 00000080'), pattern(300).subarray(256))),
      ),
    );
  });

  test('SEND: queue 0, MSN from 1, MO in bytes', () => {
    const { nic, sent } = sender({ segmentBytes: 256 });
    nic.queue.push({ opcode: RDMAP_SEND, payload: pattern(257) });
    nic.queue.push({ opcode: RDMAP_SEND_SE_INVALIDATE, payload: hex(''), invalidateStag: 0xdeadbeef });
    expect(sent()).toEqual(
      concat(
        fpdu(concat(hex('01 43 00000000 00000000 00000001 00000000'), pattern(257).subarray(0, 256))),
        fpdu(concat(hex('41 43 00000000 00000000 00000001 00000100'), pattern(257).subarray(256))),
        fpdu(hex('41 46 deadbeef 00000000 00000002 00000000')),
      ),
    );
  });

  test('READ request: queue 1, sink, size, source', () => {
    const { nic, sent } = sender();
    nic.queue.push(read([0x0a0b0c0d, 0x12_3456_789a], [0x55, 0x1_0000_0010], 4096));
    const body = '00000055 00000001 00000010 00001000 0a0b0c0d 00000012 3456789a';
    expect(sent()).toEqual(fpdu(hex(`41 41 00000000 00000001 00000001 00000000 ${body}`)));
  });

  test('atomic: queue 1, after a READ; operands with their masks', () => {
    const { nic, sent } = sender();
    nic.queue.push(read([1, 0], [2, 0], 0), atomic(ATOMIC_CMP_SWAP, [9, 0x1000], 0x1_0000_0002n, 3n));
    const operands = '0000000100000002 0000000000000000 0000000000000003 ffffffffffffffff';
    const body = `00000002 00000002 00000009 00000000 00001000 ${operands}`;
    const [, second] = [sent(64), sent()];
    expect(second).toEqual(fpdu(hex(`41 4a 00000000 00000001 00000002 00000000 ${body}`)));
  });

  test('immediate data: queue 0, 8 bytes', () => {
    const { nic, sent } = sender();
    nic.queue.push({ opcode: RDMAP_IMMEDIATE_SE, immediate: 0xcafe });
    expect(sent()).toEqual(fpdu(hex('41 49 00000000 00000000 00000001 00000000 00000000 0000cafe')));
  });

  test('Terminate of our own accord: queue 2, nothing quoted', () => {
    const { stream, sent, nic } = sender();
    stream.terminate(0x0207, 'the test wants it');
    expect(sent()).toEqual(fpdu(hex('41 47 00000000 00000002 00000001 00000000 0207 0000')));
    expect(stream.txState).toBe(TX_DONE);
    expect(sent()).toEqual(hex(''));
    expect(nic.end?.reason).toContain('the test wants it');
  });

  test('without CRC its field is there, and 0', () => {
    const { nic, sent } = sender({ crc: undefined });
    nic.queue.push(write(7, 0, hex('aabb')));
    expect(sent()).toEqual(fpdu(hex('c1 40 00000007 00000000 00000000 aabb'), false));
  });
});

describe('received', () => {
  const responder = () => {
    const nic = new FlatNic();
    const stream = new RdmaStream(nic, { initiator: false, crc: createCrc32c(), ird: 4, ord: 4 });
    const give = (bytes: Uint8Array) => stream.receive(bytes, 0, bytes.length);
    const out = new Uint8Array(100_000);
    return { nic, stream, give, sent: () => out.slice(0, stream.transmit(out, 0, out.length)) };
  };

  test('READ request: the response is tagged, with the sink of the request', () => {
    const { nic, give, sent } = responder();
    nic.region(0x0a0b0c0d, 0x1000, pattern(64));
    const body = '99000001 ffffffff fffffff0 00000004 0a0b0c0d 00000000 00001004';
    give(fpdu(hex(`41 41 00000000 00000001 00000001 00000000 ${body}`)));
    expect(sent()).toEqual(fpdu(concat(hex('c1 42 99000001 ffffffff fffffff0'), pattern(64).subarray(4, 8))));
  });

  test('atomic: the response is on queue 3, with the id of the request', () => {
    const { nic, give, sent } = responder();
    nic.region(9, 0, hex('0100000000000000'));
    const operands = '0000000000000005 0000000000000000 0000000000000000 0000000000000000';
    give(
      fpdu(hex(`41 4a 00000000 00000001 00000001 00000000 00000000 000000aa 00000009 0000000000000000 ${operands}`)),
    );
    expect(sent()).toEqual(fpdu(hex('41 4b 00000000 00000003 00000001 00000000 000000aa 0000000000000001')));
    expect(nic.regions.get(9)!.bytes).toEqual(hex('0600000000000000'));
  });

  test('reserved bits are not looked at', () => {
    const { nic, give } = responder();
    const memory = nic.region(7, 0, new Uint8Array(4));
    give(fpdu(hex('fd 70 00000007 00000000 00000000 aabb')));
    expect(nic.end).toBeUndefined();
    expect(memory).toEqual(hex('aabb0000'));
  });

  test('Terminate: its code, and which of our READs it quotes', () => {
    const { nic, stream, give, sent } = responder();
    nic.region(7, 0, new Uint8Array(0));
    give(fpdu(hex('c1 40 00000000 00000000 00000000')));
    nic.queue.push(read([1, 0], [2, 0], 10, 40), read([1, 0], [2, 0], 10, 41));
    sent();
    const quoted = '002e 41 41 00000000 00000001 00000002 00000000';
    give(fpdu(hex(`41 47 00000000 00000002 00000001 00000000 0101 e000 ${quoted}`)));
    expect(nic.end).toMatchObject({ code: 0x0101, byPeer: true, failedId: 41 });
    expect(sent()).toEqual(hex(''));
    expect(stream.txState).toBe(TX_DONE);
    expect(give(hex('0000'))).toBe(2);
  });
});

describe('room', () => {
  test('a segment that does not fit waits for a new buffer, or is cut where that is empty', () => {
    const { nic, stream, sent } = sender();
    nic.queue.push(write(7, 0, pattern(100)), write(7, 0, pattern(100)));
    expect(sent(200).length).toBe(120);
    expect(stream.txState).toBe(TX_FULL);
    // 2 and 14 bytes of headers, 4 of CRC; what is left is a multiple of 4.
    expect(sent(100).length).toBe(96);
    expect(sent(100).length).toBe(44);
    expect(stream.txState).toBe(TX_IDLE);
    expect(nic.log).toEqual(['sent 0', 'sent 0']);
  });

  test('states', () => {
    const nic = new FlatNic();
    const stream = new RdmaStream(nic, { initiator: false, crc: undefined, ird: 1, ord: 1 });
    expect(stream.transmit(new Uint8Array(100), 0, 100)).toBe(0);
    expect(stream.txState).toBe(TX_HELD);
  });

  test.each([
    { ird: -1, ord: 1 },
    { ird: 1, ord: 1.5 },
    { ird: 1, ord: 1, segmentBytes: 100 },
    { ird: 1, ord: 1, segmentBytes: 1001 },
  ])('options %o are refused', (options) => {
    expect(() => new RdmaStream(new FlatNic(), { initiator: true, crc: undefined, ...options })).toThrow('EINVAL');
  });
});
