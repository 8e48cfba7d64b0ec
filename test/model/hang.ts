import type { Host } from '../../src/mm/index.js';

/** WHY so long: where swap is full each access has reclaim look at everything, again and again: seconds on a busy machine. */
const HANG_MS = 20_000;

/** Steps that do not end are a failure of their own, so that they shrink. */
export async function orHang(host: Host, steps: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const hang = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(true), HANG_MS);
  });
  const hangs = await Promise.race([steps.then(() => false), hang]).finally(() => clearTimeout(timer));
  if (hangs) throw new Error(`hangs: ${JSON.stringify({ ...host.stats(), vmstat: undefined })}`);
}
