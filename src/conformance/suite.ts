import type { ConformanceAdapter, ConformanceCase, ConformanceResult } from './adapter.js';
import { FILE_OPERATIONS } from './files.js';
import { LIFETIMES } from './lifetimes.js';
import { OPERATIONS, type Scenario } from './operations.js';
import { PROGRAMS } from './program.js';
import { OVERLAP, RACES } from './races.js';
import { World } from './world.js';
import { YOUNG } from './young.js';

/**
 * What every driver over mm must do, as cases that know nothing of the driver but an adapter. Each makes a host of its own and ends it; a driver is run as
 * it is, on one thread.
 *
 * Use: `for (const c of conformanceCases(adapter)) test(c.name, c.run)`, or `for await (const r of conformance(adapter))`.
 */
export function conformanceCases(adapter: ConformanceAdapter): ConformanceCase[] {
  const scenarios = [...OPERATIONS, ...FILE_OPERATIONS, ...RACES, ...LIFETIMES, ...PROGRAMS];
  if (adapter.blocks !== true) scenarios.push(OVERLAP);
  if (adapter.young === true) scenarios.push(...YOUNG);
  return scenarios.map((scenario) => ({
    name: scenario.name,
    numbers: scenario.numbers,
    run: () => runIn(adapter, scenario),
  }));
}

async function runIn(adapter: ConformanceAdapter, scenario: Scenario): Promise<void> {
  const world = await World.create(adapter);
  try {
    await scenario.run(world);
    await world.end();
  } catch (error) {
    // What still runs in it ends.
    await (async () => world.instance.destroy())().catch(() => {});
    throw error;
  }
}

/** Runs the cases one after another. */
export async function* conformance(adapter: ConformanceAdapter): AsyncGenerator<ConformanceResult, void> {
  for (const c of conformanceCases(adapter)) {
    let error: Error | undefined;
    try {
      await c.run();
    } catch (thrown) {
      error = thrown instanceof Error ? thrown : new Error(String(thrown));
    }
    yield { case: c, error };
  }
}
