import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attack } from './hostile/attack.js';
import { BREACHES } from './hostile/breaches.js';
import { dice } from './hostile/session.js';
import { Victim } from './hostile/victim.js';

/**
 * A peer that breaks the protocol, or goes beyond its rights, while the host takes its pages away: the Terminate message that the RFCs have for it, no byte changed that it had no
 * right to, nothing pinned or leaked, and the connection beside it goes on. Random ones: test/long/rdmafuzz.test.ts.
 */
describe('a hostile peer', () => {
  let victim: Victim;
  beforeAll(async () => {
    victim = await Victim.create('memory');
  });
  afterAll(() => victim.stop());

  test.each(BREACHES.map((breach, n) => [breach.name, breach, n] as const))('%s', async (_name, breach, n) => {
    await attack(victim, breach, dice(n + 1));
  });

  test('all that is sent as agreed is done', async () => {
    const { Session } = await import('./hostile/session.js');
    const peer = await victim.connect();
    const session = new Session(victim, peer, dice(99));
    for (let n = 0; n < 30; n++) await session.request();
    peer.end();
    await peer.untilOver();
    expect(peer.terminate()).toBeUndefined();
    await victim.failed();
    await victim.check();
  });
});
