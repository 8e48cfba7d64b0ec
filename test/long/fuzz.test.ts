import { expect, it } from 'vitest';
import { fuzz, qemuMissing } from '../isa/fuzz.js';

/** 40000 random programs against QEMU. */

const missing = qemuMissing();
if (missing) process.stderr.write(`SKIPPED: random programs against QEMU: ${missing}\n`);

it.skipIf(missing !== undefined)('random programs leave the same registers, memory and traps as on QEMU', () => {
  for (let seed = 100; seed < 200; seed++) {
    expect(fuzz({ seed, nrPrograms: 400, nrItems: 150 }).slice(0, 3)).toEqual([]);
  }
});
