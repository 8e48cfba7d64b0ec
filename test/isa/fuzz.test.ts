import { expect, it } from 'vitest';
import { fuzz, qemuMissing } from './fuzz.js';

/** A few seeds of random programs against QEMU; many more by run-fuzz.ts. */

const missing = qemuMissing();
if (missing) process.stderr.write(`SKIPPED: random programs against QEMU: ${missing}\n`);

it.skipIf(missing !== undefined)('random programs leave the same registers, memory and traps as on QEMU', () => {
  for (const seed of [1, 2]) expect(fuzz({ seed, nrPrograms: 300, nrItems: 120 }).slice(0, 3)).toEqual([]);
});
