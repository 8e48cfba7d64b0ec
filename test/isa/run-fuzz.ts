import { fuzz, qemuMissing } from './fuzz.js';

/**
 * Random programs against QEMU, for as long as is wanted.
 *
 *   node scripts/run-ts.mjs test/isa/run-fuzz.ts [SECONDS [FIRST_SEED [PROGRAMS]]]
 *
 * Prints what disagrees, with the seed and program that show it again. Exit code 1 if something did, 2 without QEMU.
 */

const [seconds = '60', firstSeed = '1', nrPrograms = '400'] = process.argv.slice(2);
const NR_ITEMS = 150;
const MAX_FAILURES = 20;

const missing = qemuMissing();
if (missing) {
  process.stderr.write(`${missing}\n`);
  process.exit(2);
}
const end = Date.now() + Number(seconds) * 1000;
let seed = Number(firstSeed);
let failures = 0;
let programs = 0;
while (Date.now() < end && failures < MAX_FAILURES) {
  for (const failure of fuzz({ seed, nrPrograms: Number(nrPrograms), nrItems: NR_ITEMS })) {
    failures++;
    process.stdout.write(`seed ${failure.seed} program ${failure.program}: ${failure.what}\n`);
  }
  programs += Number(nrPrograms);
  seed++;
}
process.stdout.write(
  `${programs} programs of ${NR_ITEMS} items, seeds ${firstSeed} to ${seed - 1}: ${failures} disagree\n`,
);
process.exitCode = failures === 0 ? 0 : 1;
