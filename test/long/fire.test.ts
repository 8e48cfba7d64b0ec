import { expect, test } from 'vitest';
import { type Met, pinned, underFire } from '../guests/fire.js';

/** Ten minutes, of which CI does one; `UNPIN_FIRE_SECONDS` says otherwise, `UNPIN_SEED` begins elsewhere. */

const seconds = Number(process.env.UNPIN_FIRE_SECONDS ?? (process.env.CI ? 60 : 600));
const firstSeed = Number(process.env.UNPIN_SEED ?? 1);

test('S9 N1 N3 N15 N24: guests under fire say what pinned ones say', async () => {
  const end = Date.now() + seconds * 1000;
  const total: Met = {};
  let seed = firstSeed;
  do {
    const { verdicts, met } = await underFire(seed);
    expect(verdicts, `seed ${seed}`).toEqual(await pinned(seed));
    expect(met, `seed ${seed}`).toMatchObject({ pinnedFrames: 0, poisoned: 0 });
    for (const [name, n] of Object.entries(met)) total[name] = (total[name] ?? 0) + n;
    seed++;
  } while (Date.now() < end);
  console.log(`seeds ${firstSeed} to ${seed - 1}: ${JSON.stringify(total)}`);
  expect(Object.entries(total).filter(([name, n]) => n === 0 && !['pinnedFrames', 'poisoned'].includes(name))).toEqual(
    [],
  );
});
