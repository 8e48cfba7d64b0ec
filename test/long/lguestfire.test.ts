import { expect, test } from 'vitest';
import { lguestUnderFire, type Met } from '../guests/lguestfire.js';

/** A minute, of which CI does a quarter; `UNPIN_LGUEST_SECONDS` says otherwise, `UNPIN_SEED` begins elsewhere. */

const seconds = Number(process.env.UNPIN_LGUEST_SECONDS ?? (process.env.CI ? 15 : 60));
const firstSeed = Number(process.env.UNPIN_SEED ?? 1);
const NOTHING = { pinnedFrames: 0, poisoned: 0, lost: 0 };

test("S10 N1 N3 N15 N20: lguest's guests under fire verify every word, and leave nothing", async () => {
  const end = Date.now() + seconds * 1000;
  const total: Met = {};
  let seed = firstSeed;
  do {
    const { verdicts, met } = await lguestUnderFire(seed);
    const [first, ...others] = verdicts;
    expect(first, `seed ${seed}`).toMatch(/^2 MiB in 512 pages: verified \d+ words and 480 blocks, 0 errors/);
    for (const other of others) expect(other, `seed ${seed}`).toBe(first);
    expect(met, `seed ${seed}`).toMatchObject(NOTHING);
    for (const [name, n] of Object.entries(met)) total[name] = (total[name] ?? 0) + n;
    seed++;
  } while (Date.now() < end);
  console.log(`seeds ${firstSeed} to ${seed - 1}: ${JSON.stringify(total)}`);
  expect(Object.entries(total).filter(([name, n]) => n === 0 && !(name in NOTHING))).toEqual([]);
});
