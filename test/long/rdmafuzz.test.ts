import { expect, test } from 'vitest';
import { attack } from '../rdma/hostile/attack.js';
import { BREACHES } from '../rdma/hostile/breaches.js';
import { scramble } from '../rdma/hostile/scramble.js';
import { dice } from '../rdma/hostile/session.js';
import { Victim } from '../rdma/hostile/victim.js';
import type { Transport } from '../rdma/rdmaworld.js';

/**
 * Hostile peers at a NIC while the host takes its pages away: breaches after conversations of any length, and conversations damaged anywhere; on one thread, and over TCP
 * with the NIC in a thread of its own. `UNPIN_SEED` begins elsewhere.
 */

const NR_ACTS = process.env.CI ? 200 : 3000;
const ACTS_OF_VICTIM = 50;
const seed = Number(process.env.UNPIN_SEED ?? 1000);

test.each(['memory', 'tcp'] satisfies Transport[])(`${NR_ACTS} attacks over %s`, async (transport) => {
  for (let first = 0; first < NR_ACTS; first += ACTS_OF_VICTIM) {
    const victim = await Victim.create(transport);
    for (let n = first; n < first + ACTS_OF_VICTIM; n++) {
      const next = dice(seed + n);
      const breach = BREACHES[next(BREACHES.length)]!;
      const act = next(2) === 0 ? scramble(victim, next) : attack(victim, breach, next, next(12));
      const wrong = await act.then(
        () => undefined,
        (error: Error) => error,
      );
      expect([seed + n, breach.name, wrong?.message, wrong?.stack]).toEqual([
        seed + n,
        breach.name,
        undefined,
        undefined,
      ]);
    }
    await victim.stop();
  }
});
