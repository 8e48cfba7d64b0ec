import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAX_CONNECTING, UserNetwork } from '../../../src/machine/index.js';
import { GATEWAY, GUEST_MAC, readTcp, type TcpFromNet, tcpFrame } from './frame.js';
import { ACK, FIN, GuestTcp, type GuestTcpOptions, RST, SYN } from './guesttcp.js';
import { simBackend } from './simbackend.js';
import { SimClock } from './simclock.js';

/** What happens to a frame on its way: 0 arrives, 1 lost, 2 arrives twice, 3 arrives late. */
type Fate = 0 | 1 | 2 | 3;

interface WorldOptions {
  answer?: 'accept' | 'refuse' | 'never';
  fates?: Fate[];
  chunk?: number;
  takeBytes?: number;
}

function world({ fates = [], ...backendOptions }: WorldOptions = {}) {
  const clock = new SimClock();
  const backend = simBackend(clock, backendOptions);
  const net = new UserNetwork({ backend, clock, guestMac: Uint8Array.from(GUEST_MAC), random: () => 0xffff_fe00 });
  let nr = 0;
  const carry = (frame: Uint8Array, deliver: (frame: Uint8Array) => void) => {
    const fate = fates[nr++] ?? 0;
    const kept = frame.slice();
    if (fate === 1) return;
    clock.setTimer(() => deliver(kept), fate === 3 ? 5 : 1);
    if (fate === 2) clock.setTimer(() => deliver(kept), 2);
  };
  const guests: GuestTcp[] = [];
  const seen: TcpFromNet[] = [];
  net.attach((frame) =>
    carry(frame, (kept) => {
      seen.push(readTcp(kept));
      for (const guest of guests) guest.receive(kept);
    }),
  );
  const send = (frame: Uint8Array) => carry(frame, (kept) => net.transmit(kept));
  const guest = (options: Partial<GuestTcpOptions> & { data: Uint8Array }) => {
    const made = new GuestTcp({ clock, send, srcPort: 40000, dstPort: 80, ...options });
    guests.push(made);
    return made;
  };
  return { clock, backend, net, guest, send, seen };
}

function bytes(lenBytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: lenBytes }, (_, i) => (i * 31 + seed + (i >>> 8)) & 255);
}

const fates = fc.array(fc.oneof({ weight: 6, arbitrary: fc.constant<Fate>(0) }, fc.constantFrom<Fate>(1, 2, 3)), {
  minLength: 0,
  maxLength: 400,
});

describe('TCP of a guest', () => {
  it('carries both ways, whole and in order, over a link that loses, doubles and reorders, and closes', () => {
    const options = fc.record({
      fates,
      up: fc.nat(30_000),
      down: fc.nat(60_000),
      mss: fc.integer({ min: 100, max: 1460 }),
      windowScale: fc.constantFrom(-1, 0, 7),
      bufferBytes: fc.constantFrom(2000, 30_000, 65_535),
      readBytes: fc.constantFrom(200, 5_000, 1e9),
      takeBytes: fc.constantFrom(300, 20_000),
      hostFirst: fc.boolean(),
    });
    fc.assert(
      fc.property(options, ({ up, down, hostFirst, takeBytes, ...o }) => {
        const { clock, backend, net, guest } = world({ fates: o.fates, takeBytes });
        const sent = bytes(up, 1);
        const wanted = bytes(down, 7);
        const g = guest({ ...o, data: sent });
        const stream = () => backend.streams[0];
        clock.run(60_000, () => stream() !== undefined);
        stream().send(wanted);
        if (hostFirst) stream().sendEnd();
        clock.run(600_000, () => stream().ended);
        stream().sendEnd();
        clock.run(3_600_000, () => g.done && net.tcp.nrConnections === 0);
        expect(g.reset).toBe(false);
        expect(stream().wasReset).toBe(false);
        expect(Buffer.from(stream().received).equals(Buffer.from(sent))).toBe(true);
        expect(Buffer.from(g.received).equals(Buffer.from(wanted))).toBe(true);
        expect(g.done).toBe(true);
        expect(net.tcp.nrConnections).toBe(0);
        clock.run(10_000);
        expect(clock.idle).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('carries forwarded connections likewise', () => {
    fc.assert(
      fc.property(fates, fc.nat(20_000), fc.nat(20_000), (f, up, down) => {
        const { clock, backend, net, guest } = world({ fates: f });
        void net.forward(8022, 22);
        const g = guest({ data: bytes(up, 3), passive: true, srcPort: 22, dstPort: 49152 });
        const stream = backend.dial(8022)!;
        stream.send(bytes(down, 5));
        stream.sendEnd();
        clock.run(3_600_000, () => g.done && net.tcp.nrConnections === 0);
        expect(Buffer.from(stream.received).equals(Buffer.from(bytes(up, 3)))).toBe(true);
        expect(Buffer.from(g.received).equals(Buffer.from(bytes(down, 5)))).toBe(true);
        expect(net.tcp.nrConnections).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it('tells the guest of a port where nobody listens, and the host of a guest where nobody does', () => {
    const { clock, backend, net, guest } = world({ answer: 'refuse' });
    const g = guest({ data: bytes(1, 1) });
    clock.run(100);
    expect(g.reset).toBe(true);
    expect(net.tcp.nrConnections).toBe(0);
    void net.forward(8022, 23);
    const stream = backend.dial(8022)!;
    clock.run(1, () => false);
    net.transmit(tcpFrame({ srcPort: 23, dstPort: 49152, seq: 0, ack: 0xffff_fe01, flags: RST | ACK }));
    expect(stream.wasReset).toBe(true);
    expect(net.tcp.nrConnections).toBe(0);
  });

  it('a guest that is not there costs a forwarded connection its time, not for ever', () => {
    const { clock, backend, net } = world();
    void net.forward(8022, 22);
    const stream = backend.dial(8022)!;
    clock.run(300_000, () => stream.wasReset);
    expect(stream.wasReset).toBe(true);
    expect(net.tcp.nrConnections).toBe(0);
  });
});

/** A connection that stands, driven segment by segment. */
function standing(options: WorldOptions = {}) {
  const w = world(options);
  const raw = (fields: Partial<Parameters<typeof tcpFrame>[0]>) => {
    w.net.transmit(tcpFrame({ srcPort: 40000, dstPort: 80, seq: 1001, ack: 0xffff_fe01, flags: ACK, ...fields }));
    w.clock.run(10);
  };
  raw({ seq: 1000, ack: 0, flags: SYN, options: [2, 4, 5, 180] });
  raw({});
  const stream = w.backend.streams[0];
  w.seen.length = 0;
  return { ...w, raw, stream };
}

describe('a connection that stands', () => {
  it('takes no data twice, whatever overlaps', () => {
    const { raw, stream } = standing();
    raw({ data: [1, 2, 3, 4] });
    raw({ data: [1, 2, 3, 4, 5, 6] });
    raw({ seq: 1003, data: [3, 4, 5, 6, 7] });
    raw({ seq: 1009, data: [9, 9] });
    raw({ seq: 1008, data: [8] });
    raw({ seq: 1001, data: [0, 0] });
    expect(stream.received).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it('is not reset by a RST that only lies in the window (RFC 5961), but by the right one', () => {
    const { raw, stream, seen } = standing();
    raw({ seq: 1005, flags: RST });
    raw({ seq: 900, flags: RST });
    expect(stream.wasReset).toBe(false);
    expect(seen.map(({ flags, ack }) => [flags, ack])).toEqual([[ACK, 1001]]);
    raw({ seq: 1001, flags: RST });
    expect(stream.wasReset).toBe(true);
  });

  it('is not torn down by a SYN, nor by an acknowledgement of what was never sent', () => {
    const { raw, stream, seen, net } = standing();
    raw({ seq: 1001, flags: SYN | ACK });
    raw({ ack: 0x1234_5678, data: [1] });
    expect(stream.received).toEqual([]);
    expect(seen.map(({ flags, ack }) => [flags, ack])).toEqual([
      [ACK, 1001],
      [ACK, 1001],
    ]);
    expect(net.tcp.nrConnections).toBe(1);
  });

  it('tells a window that the socket has room for, and takes nothing beyond it', () => {
    const { raw, stream, seen } = standing({ takeBytes: 1 });
    let seq = 1001;
    for (let i = 0; i < 100; i++) {
      raw({ seq, data: new Uint8Array(1460) });
      seq += 1460;
    }
    expect(stream.received.length).toBeLessThanOrEqual(128 * 1024);
    expect(stream.received.length).toBeGreaterThan(60_000);
    const last = seen.at(-1)!;
    expect(last.window).toBe(0);
    expect((last.ack - 1001) >>> 0).toBe(stream.received.length);
  });

  it('asks a guest with a closed window for as long as it answers, and goes on when it opens', () => {
    const { raw, stream, seen, clock, net } = standing();
    raw({ window: 0 });
    stream.send(bytes(3000, 1));
    for (let i = 0; i < 40; i++) {
      const before = seen.length;
      clock.run(70_000, () => seen.length > before);
      expect(seen.at(-1)!.data.length).toBe(1);
      raw({ window: 0 });
    }
    expect(net.tcp.nrConnections).toBe(1);
    seen.length = 0;
    raw({ window: 65535 });
    expect(seen.map(({ data }) => data.length)).toEqual([1460, 1460, 80]);
    expect(Buffer.concat(seen.map(({ data }) => data)).equals(Buffer.from(bytes(3000, 1)))).toBe(true);
  });

  it('gives a silent guest up, and tells the host', () => {
    const { stream, clock, net, seen } = standing();
    stream.send(bytes(10, 1));
    clock.run(3_600_000);
    expect(stream.wasReset).toBe(true);
    expect(net.tcp.nrConnections).toBe(0);
    expect(seen.length).toBeLessThan(20);
    expect(seen.at(-1)!.flags & RST).toBe(RST);
  });

  it('sends again at once what three duplicate acknowledgements ask for', () => {
    const { raw, stream, seen, clock } = standing();
    stream.send(bytes(1460 * 6, 1));
    clock.run(20);
    seen.length = 0;
    for (let i = 0; i < 4; i++) raw({});
    expect(seen.filter(({ data }) => data.length > 0).map(({ seq }) => seq)).toEqual([0xffff_fe01]);
  });

  it('half closes: the other way goes on', () => {
    const { raw, stream, seen, net, clock } = standing();
    raw({ flags: ACK | FIN });
    expect(stream.ended).toBe(true);
    seen.length = 0;
    stream.send(bytes(5, 1));
    clock.run(10);
    expect(seen.at(-1)!.data.length).toBe(5);
    raw({ seq: 1002, ack: (0xffff_fe01 + 5) | 0 });
    stream.sendEnd();
    clock.run(10);
    expect(seen.at(-1)!.flags & FIN).toBe(FIN);
    raw({ seq: 1002, ack: (0xffff_fe01 + 6) | 0 });
    expect(net.tcp.nrConnections).toBe(0);
  });

  it('sends one FIN, and none again once it is acknowledged, while the guest goes on', () => {
    const { raw, stream, seen, clock, net } = standing();
    stream.sendEnd();
    clock.run(10);
    expect(seen.map(({ flags }) => flags & FIN)).toEqual([FIN]);
    seen.length = 0;
    raw({ ack: (0xffff_fe01 + 1) | 0 });
    for (let i = 0; i < 5; i++) raw({ seq: 1001 + i, ack: (0xffff_fe01 + 1) | 0, data: [i] });
    clock.run(100_000);
    expect(stream.received).toEqual([0, 1, 2, 3, 4]);
    expect(seen.map(({ flags }) => flags & FIN)).toEqual([0, 0, 0, 0, 0]);
    expect(net.tcp.nrConnections).toBe(1);
  });

  it('hears nothing of a segment that was damaged on its way, wherever that was', () => {
    const { net, stream, clock, seen } = standing();
    const good = tcpFrame({ srcPort: 40000, dstPort: 80, seq: 1001, ack: 0xffff_fe01, flags: ACK, data: [1, 2, 3] });
    for (let at = 14; at < good.length; at++) {
      const damaged = good.slice();
      damaged[at] ^= 0x10;
      net.transmit(damaged);
    }
    clock.run(10);
    expect(stream.received).toEqual([]);
    expect(seen).toEqual([]);
    net.transmit(good);
    expect(stream.received).toEqual([1, 2, 3]);
  });

  it('hands a reset of the host on', () => {
    const { stream, seen, net, clock } = standing();
    stream.events!.closed(true);
    clock.run(10);
    expect(seen.at(-1)).toMatchObject({ flags: RST | ACK, seq: 0xffff_fe01 });
    expect(net.tcp.nrConnections).toBe(0);
  });
});

describe('bounds', () => {
  it('a flood of SYNs opens so many sockets and no more, and what stands goes on', () => {
    const { net, clock, backend } = world({ answer: 'never' });
    for (let port = 1; port <= 60_000; port++) {
      net.transmit(tcpFrame({ srcPort: port, dstPort: 80, seq: 0, flags: SYN }));
    }
    expect(net.tcp.nrConnections).toBe(MAX_CONNECTING);
    expect(backend.streams.length).toBe(MAX_CONNECTING);
    clock.run(1000);
  });

  it('SYNs that are answered and never acknowledged are given up', () => {
    const { net, clock } = world();
    for (let port = 1; port <= 500; port++) {
      net.transmit(tcpFrame({ srcPort: port, dstPort: 80, seq: 0, flags: SYN }));
      clock.run(2);
    }
    expect(net.tcp.nrConnections).toBe(MAX_CONNECTING);
    clock.run(300_000);
    expect(net.tcp.nrConnections).toBe(0);
    expect(clock.idle).toBe(true);
  });

  it('a guest that is gone leaves no connection behind', () => {
    const { net, stream, clock } = standing();
    net.close();
    expect(stream.wasReset).toBe(true);
    expect(net.tcp.nrConnections).toBe(0);
    clock.run(100);
    expect(clock.idle).toBe(true);
  });

  it('only goes where it may', () => {
    const { net, clock, backend, seen } = world();
    for (const dst of [
      [10, 0, 2, 3],
      [10, 0, 2, 99],
      [192, 0, 2, 1],
      [127, 0, 0, 1],
      [255, 255, 255, 255],
      [0, 0, 0, 0],
    ]) {
      net.transmit(tcpFrame({ srcPort: 40000, dstPort: 80, seq: 0, flags: SYN, dst }));
    }
    net.transmit(tcpFrame({ srcPort: 40000, dstPort: 81, seq: 0, flags: SYN, dst: GATEWAY }));
    clock.run(10);
    expect(backend.connects).toEqual(['127.0.0.1:81']);
    expect(seen.filter(({ flags }) => (flags & RST) !== 0).length).toBe(3);
  });
});
