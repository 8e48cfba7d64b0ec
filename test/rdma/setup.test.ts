import { afterEach, describe, expect, test } from 'vitest';
import type { Stream, StreamNet } from '../../src/rdma/index.js';
import { Clock } from './hostile/clock.js';
import { concat, fpdu, mpaRequestFrame, readRequest, tagged } from './hostile/segments.js';
import { dice, Session } from './hostile/session.js';
import { IRD, Victim } from './hostile/victim.js';
import { memoryNet } from './memorynet.js';

/** Peers that do not set up a connection as MPA wants it, or never come to an end: what they can make a NIC hold, and for how long. */

let victim: Victim;
afterEach(() => victim.stop());

const changed = (at: number, value: number): Uint8Array => {
  const frame = mpaRequestFrame(IRD);
  frame[at] = value;
  return frame;
};

describe('frames that are refused', () => {
  const FRAMES: [string, Uint8Array][] = [
    ['another key', changed(3, 0x2e)],
    ['the key of a reply', changed(9, 'p'.charCodeAt(0))],
    ['revision 0', changed(17, 0)],
    ['revision 3', changed(17, 3)],
    ['more private data than there may be', changed(18, 3)],
    ['no room for what it says that it has', changed(19, 3)],
    ['an FPDU before it was accepted', concat(mpaRequestFrame(IRD), fpdu(new Uint8Array(20)))],
  ];

  test.each(FRAMES)('%s', async (_name, bytes) => {
    victim = await Victim.create('memory');
    const peer = await victim.peer();
    peer.send(bytes);
    await peer.untilOver();
    expect(victim.nrRequests).toBe(0);
    await victim.check();
    const other = await victim.connect();
    other.end();
    await victim.failed();
  });

  test('bytes that come while the request waits to be looked at end it', async () => {
    victim = await Victim.create('memory');
    victim.accepts = false;
    const peer = await victim.peer();
    peer.send(mpaRequestFrame(IRD));
    await victim.world.turns(20);
    expect([peer.isOver, victim.nrRequests]).toEqual([false, 1]);
    peer.send(fpdu(new Uint8Array(20)));
    await peer.untilOver();
    await victim.check();
  });

  test('a peer that needs markers is rejected', async () => {
    victim = await Victim.create('memory');
    const peer = await victim.peer();
    peer.send(changed(16, 0xd0));
    expect((await peer.reply()) & 0x20).toBe(0x20);
    await peer.untilOver();
    await victim.world.turns(20);
    await victim.check();
  });

  test('any bytes, in any pieces', async () => {
    victim = await Victim.create('memory');
    const next = dice(5);
    for (let n = 0; n < 200; n++) {
      const frame = mpaRequestFrame(
        next(0x4000),
        Uint8Array.from({ length: next(100) }, () => next(256)),
      );
      for (let k = next(3); k > 0; k--) frame[next(frame.length)]! ^= 1 << next(8);
      const peer = await victim.peer();
      new Session(victim, peer, next).sendBytes(frame.subarray(0, next(4) === 0 ? next(frame.length) : frame.length));
      peer.end();
      await peer.untilOver();
      await victim.world.turns(5);
      if (victim.world.device.stats().nrQps > 2) await victim.gone();
    }
    await victim.check();
  });
});

describe('peers that take their time', () => {
  test('who has not asked within ten seconds is cut off, byte by byte or not at all; who has asked waits', async () => {
    const clock = new Clock();
    victim = await Victim.create('memory', { setTimer: clock.setTimer });
    victim.accepts = false;
    const [silent, slow, patient] = [await victim.peer(), await victim.peer(), await victim.peer()];
    patient.send(mpaRequestFrame(IRD));
    for (let second = 0; second < 10; second++) {
      slow.send(mpaRequestFrame(IRD).subarray(second, second + 1));
      await victim.world.turns(5);
      expect([silent.isOver, slow.isOver]).toEqual([false, false]);
      clock.advance(1000);
    }
    await Promise.all([silent.untilOver(), slow.untilOver()]);
    expect([patient.isOver, victim.nrRequests]).toEqual([false, 1]);
  });

  test('a request that nobody has looked at goes with its listener', async () => {
    victim = await Victim.create('memory');
    const listener = victim.world.b.context.createId();
    await listener.bindAddr({ port: 0 });
    await listener.listen();
    victim.port = listener.localAddr!.port;
    const peer = await victim.peer();
    peer.send(mpaRequestFrame(IRD));
    await victim.world.turns(20);
    expect(peer.isOver).toBe(false);
    listener.destroyId();
    await peer.untilOver();
  });

  test('who reads nothing is cut off five seconds after its breach', async () => {
    const clock = new Clock();
    victim = await Victim.create('memory', { setTimer: clock.setTimer });
    const peer = await victim.connect();
    peer.pause();
    const session = new Session(victim, peer, dice(1));
    // More than the window and both buffers.
    for (let n = 0; n < 8; n++) {
      session.send(readRequest(session.readMsn++, session.at('rw', 0), victim.places.rw.length));
      await victim.world.turns(50);
    }
    session.send(tagged({ stag: 1, to: 0n, payload: new Uint8Array(9) }));
    const ended = victim.ended();
    await victim.world.turns(200);
    clock.advance(4999);
    await victim.world.turns(20);
    expect(await Promise.race([ended, 'not yet'])).toBe('not yet');
    clock.advance(1);
    expect(await ended).toMatch(/no buffer|STag/);
    await victim.failed();
    await victim.check();
  });

  test('streams that linger after an answer are few', async () => {
    const streams: Stream[] = [];
    const net = memoryNet();
    const counting: StreamNet = {
      ...net,
      listen: (addr, backlog, onStream) =>
        net.listen(addr, backlog, (stream) => {
          streams.push(stream);
          return onStream(stream);
        }),
    };
    victim = await Victim.create('memory', { net: counting, setTimer: new Clock().setTimer });
    for (let n = 0; n < 100; n++) {
      const peer = await victim.peer();
      peer.send(new Uint8Array(20));
      await peer.untilOver();
    }
    const open = streams.filter((stream) => !(stream as unknown as { closed: boolean }).closed);
    // One of the bystander.
    expect(open.length).toBeLessThanOrEqual(64 + 1);
    expect(open.length).toBeGreaterThan(10);
  });
});
