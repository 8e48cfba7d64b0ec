import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EthernetSegment, MAX_FLOWS, type Outgoing, UserNetwork } from '../../../src/machine/index.js';
import {
  be16,
  be32,
  checksum,
  DNS,
  GATEWAY,
  GATEWAY_MAC,
  GUEST,
  GUEST_MAC,
  ipFrame,
  readIp,
  readUdp,
  tcpFrame,
  udpFrame,
} from './frame.js';
import { simBackend } from './simbackend.js';
import { SimClock } from './simclock.js';

function world(outgoing: Outgoing = 'loopback') {
  const clock = new SimClock();
  const backend = simBackend(clock);
  const guestMac = Uint8Array.from(GUEST_MAC);
  const net = new UserNetwork({ backend, clock, guestMac, outgoing, random: () => 1 });
  const frames: Uint8Array[] = [];
  net.attach((frame) => frames.push(frame.slice()));
  return { clock, backend, net, frames };
}

describe('ARP', () => {
  const request = (wanted: number[], sender = GUEST) =>
    Uint8Array.from([
      ...[255, 255, 255, 255, 255, 255, ...GUEST_MAC, 8, 6],
      ...[0, 1, 8, 0, 6, 4, 0, 1, ...GUEST_MAC, ...sender, 0, 0, 0, 0, 0, 0, ...wanted],
    ]);

  it('tells where gateway and name server are, and of nobody else', () => {
    const { net, frames } = world();
    for (const wanted of [GATEWAY, DNS, [10, 0, 2, 7], GUEST]) net.transmit(request(wanted));
    expect(frames.length).toBe(2);
    const reply = [...GUEST_MAC, ...GATEWAY_MAC, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, ...GATEWAY_MAC];
    expect([...frames[0]]).toEqual([...reply, ...GATEWAY, ...GUEST_MAC, ...GUEST]);
    expect([...frames[1]]).toEqual([...reply, ...DNS, ...GUEST_MAC, ...GUEST]);
  });
});

describe('ICMP', () => {
  const echo = (payload: number[]) => {
    const message = [8, 0, 0, 0, 0, 7, 0, 1, ...payload];
    return [8, 0, ...be16(checksum(message)), ...message.slice(4)];
  };

  it('answers pings of the gateway with what they hold, odd lengths too', () => {
    const { net, frames } = world();
    for (const payload of [[1, 2, 3], [4, 5], []]) net.transmit(ipFrame({ protocol: 1, payload: echo(payload) }));
    expect(frames.map((frame) => [...readIp(frame).payload.slice(8)])).toEqual([[1, 2, 3], [4, 5], []]);
    expect(frames.map((frame) => readIp(frame).payload[0])).toEqual([0, 0, 0]);
  });

  it('is silent for other addresses and for a wrong checksum', () => {
    const { net, frames } = world();
    net.transmit(ipFrame({ protocol: 1, payload: echo([1]), dst: [10, 0, 2, 9] }));
    const bad = echo([1]);
    bad[2] ^= 1;
    net.transmit(ipFrame({ protocol: 1, payload: bad }));
    expect(frames).toEqual([]);
  });
});

describe('DHCP', () => {
  const message = (options: number[], ciaddr = [0, 0, 0, 0]) => {
    const fixed = [1, 1, 6, 0, ...be32(0xdead_beef), 0, 0, 0, 0, ...ciaddr, ...new Array(12).fill(0), ...GUEST_MAC];
    return [...fixed, ...new Array(236 - fixed.length).fill(0), 0x63, 0x82, 0x53, 0x63, ...options];
  };
  const ask = (options: number[], ciaddr?: number[]) => {
    const { net, frames } = world();
    const any = { src: [0, 0, 0, 0], dst: [255, 255, 255, 255] };
    net.transmit(udpFrame(68, 67, message(options, ciaddr), any));
    if (frames.length === 0) return undefined;
    const { data, srcPort, dstPort, src } = readUdp(frames[0]);
    expect([srcPort, dstPort, src]).toEqual([67, 68, GATEWAY]);
    expect([...data.slice(4, 8)]).toEqual([0xde, 0xad, 0xbe, 0xef]);
    const found: Record<number, number[]> = {};
    for (let at = 240; data[at] !== 255; at += 2 + data[at + 1]) {
      found[data[at]] = [...data.slice(at + 2, at + 2 + data[at + 1])];
    }
    return { yiaddr: [...data.slice(16, 20)], options: found };
  };

  it('offers and leases 10.0.2.15 with mask, router and name server', () => {
    const common = { 54: GATEWAY, 1: [255, 255, 255, 0], 3: GATEWAY, 6: DNS };
    expect(ask([53, 1, 1, 255])).toMatchObject({ yiaddr: GUEST, options: { 53: [2], ...common } });
    expect(ask([53, 1, 3, 54, 4, ...GATEWAY, 50, 4, ...GUEST, 255])).toMatchObject({ options: { 53: [5], ...common } });
    expect(ask([53, 1, 3, 255], GUEST)).toMatchObject({ yiaddr: GUEST, options: { 53: [5] } });
  });

  it('refuses another address, and leaves another server alone', () => {
    expect(ask([53, 1, 3, 50, 4, 10, 0, 2, 16, 255])).toMatchObject({ yiaddr: [0, 0, 0, 0], options: { 53: [6] } });
    expect(ask([53, 1, 3, 54, 4, 10, 0, 2, 77, 50, 4, ...GUEST, 255])).toBeUndefined();
  });

  it('reads options that lie about their lengths without harm', () => {
    expect(ask([53, 200, 1])).toBeUndefined();
    expect(ask([53, 1])).toBeUndefined();
    expect(ask([0, 0, 0])).toBeUndefined();
    expect(ask([53, 1, 1])).toBeDefined();
  });
});

describe('UDP', () => {
  it('goes to the host by the gateway, and the answer comes back from there', () => {
    const { net, frames, backend } = world();
    net.transmit(udpFrame(5000, 7777, [1, 2, 3]));
    expect(backend.datagrams).toMatchObject([{ to: '127.0.0.1:7777', bytes: [1, 2, 3] }]);
    backend.datagrams[0].reply(Uint8Array.of(9, 8));
    expect(readUdp(frames[0])).toMatchObject({ src: GATEWAY, srcPort: 7777, dstPort: 5000, data: Uint8Array.of(9, 8) });
  });

  it('tells when nobody is there, quoting what was sent', () => {
    const { net, frames, backend } = world();
    const frame = udpFrame(5000, 7777, [1, 2, 3]);
    net.transmit(frame);
    backend.datagrams[0].refuse();
    const { payload, protocol } = readIp(frames[0]);
    expect([protocol, payload[0], payload[1]]).toEqual([1, 3, 3]);
    expect([...payload.slice(8)]).toEqual([...frame.slice(14, 42)]);
  });

  it('is bounded, and what is silent ends', () => {
    const { net, backend, clock } = world();
    for (let port = 1; port < 2000; port++) net.transmit(udpFrame(port, 7, [port & 255]));
    expect(net.udp.nrFlows).toBe(MAX_FLOWS);
    expect(backend.udpOpen_).toBe(MAX_FLOWS);
    clock.run(100_000);
    expect(net.udp.nrFlows).toBe(0);
    expect(backend.udpOpen_).toBe(0);
    expect(clock.idle).toBe(true);
  });

  it('names are refused at once where nothing may leave the host, and asked for where all may', () => {
    const query = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 0, 0, 1, 0, 1];
    const closed = world();
    closed.net.transmit(udpFrame(5000, 53, query, { dst: DNS }));
    const { data, src } = readUdp(closed.frames[0]);
    expect([src, ...data]).toEqual([DNS, 0x12, 0x34, 0x81, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
    const open = world('any');
    open.net.transmit(udpFrame(5000, 53, query, { dst: DNS }));
    expect(open.backend.datagrams).toMatchObject([{ to: '192.0.2.53:53', bytes: query }]);
  });
});

describe('where packets may go', () => {
  const targets = [
    GATEWAY,
    [192, 0, 2, 1],
    [127, 0, 0, 1],
    [10, 0, 2, 77],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
    [0, 0, 0, 1],
  ];
  const reached = (outgoing: Outgoing) => {
    const { net, backend } = world(outgoing);
    for (const dst of targets) {
      net.transmit(udpFrame(5000, 7, [1], { dst }));
      net.transmit(tcpFrame({ srcPort: 5000, dstPort: 7, seq: 0, flags: 2, dst }));
    }
    return [...backend.datagrams.map(({ to }) => to), ...backend.connects];
  };

  it('nowhere, to loopback by the gateway, or anywhere but loopback by another name', () => {
    expect(reached('none')).toEqual([]);
    expect(reached('loopback')).toEqual(['127.0.0.1:7', '127.0.0.1:7']);
    expect(reached('any')).toEqual(['127.0.0.1:7', '192.0.2.1:7', '127.0.0.1:7', '192.0.2.1:7']);
  });

  it('not from an address that is not the guest', () => {
    const { net, backend, frames } = world('any');
    net.transmit(udpFrame(5000, 7, [1], { src: [10, 0, 2, 99] }));
    net.transmit(udpFrame(5000, 7, [1], { src: [127, 0, 0, 1] }));
    expect(backend.datagrams).toEqual([]);
    expect(frames).toEqual([]);
  });
});

describe('whatever a guest sends', () => {
  const good = [
    udpFrame(5000, 7777, [1, 2, 3]),
    udpFrame(5000, 53, new Array(20).fill(1), { dst: DNS }),
    tcpFrame({ srcPort: 1, dstPort: 2, seq: 0, flags: 2, options: [2, 4, 5, 180, 1, 3, 3, 7] }),
    tcpFrame({ srcPort: 1, dstPort: 2, seq: 1, ack: 2, flags: 16, data: [1, 2, 3] }),
    ipFrame({ protocol: 1, payload: [8, 0, 0xf7, 0xff, 0, 0, 0, 0] }),
    udpFrame(68, 67, new Array(260).fill(1), { src: [0, 0, 0, 0], dst: [255, 255, 255, 255] }),
  ];

  /** Fills in right checksums, so that what lies behind them is reached. */
  const repair = (frame: Uint8Array) => {
    if (frame.length < 34) return frame;
    frame[24] = frame[25] = 0;
    const sum = checksum(frame.slice(14, 14 + Math.max((frame[14] & 15) * 4, 20)));
    frame[24] = sum >> 8;
    frame[25] = sum;
    if (frame[23] === 17 && frame.length > 41) frame[40] = frame[41] = 0;
    return frame;
  };

  it('nothing throws, and tables stay bounded', () => {
    const mutation = fc.record({ at: fc.nat(400), value: fc.nat(255) });
    const frame = fc
      .record({
        base: fc.nat(good.length - 1),
        changes: fc.array(mutation, { maxLength: 6 }),
        cut: fc.option(fc.nat(80)),
        fix: fc.boolean(),
      })
      .map(({ base, changes, cut, fix }) => {
        const made = good[base].slice();
        for (const { at, value } of changes) if (at < made.length) made[at] = value;
        const short = cut === null ? made : made.slice(0, Math.max(made.length - cut, 0));
        return fix ? repair(short) : short;
      });
    const noise = fc.uint8Array({ maxLength: 1600 });
    fc.assert(
      fc.property(fc.array(fc.oneof({ weight: 5, arbitrary: frame }, noise), { maxLength: 60 }), (sent) => {
        const { net, clock, frames } = world('any');
        for (const f of sent) net.transmit(f);
        clock.run(50);
        for (const f of frames) if (f[12] === 8 && f[13] === 0) readIp(f);
        expect(net.tcp.nrConnections).toBeLessThanOrEqual(60);
        net.close();
      }),
      { numRuns: 2000 },
    );
  });
});

describe('a segment', () => {
  it('joins its ports: each frame reaches all others, until one closes', () => {
    const segment = new EthernetSegment();
    const seen: string[] = [];
    const [a, b, c] = ['a', 'b', 'c'].map((name) => {
      const port = segment.port();
      port.attach((frame) => seen.push(`${name}${frame[0]}`));
      return port;
    });
    a.transmit(new Uint8Array(60).fill(1));
    c.close();
    b.transmit(new Uint8Array(60).fill(2));
    c.transmit(new Uint8Array(60).fill(3));
    a.transmit(new Uint8Array(2000));
    a.transmit(new Uint8Array(13));
    expect(seen).toEqual(['b1', 'c1', 'a2']);
  });
});
