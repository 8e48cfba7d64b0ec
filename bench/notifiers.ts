import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { option } from './lib/common.js';

/**
 * What notifiers cost when all fits and nothing is reclaimed: the same guest with demand-paged RAM and with locked RAM (`--pin`),
 * processor time of the whole process, interleaved.
 *
 *   npm run bench -- notifiers [--pairs 20] [--guest DIR]
 *
 * Without DIR our bundled guest fills and verifies 64 MiB; with one (of `scripts/debian-guest`, and our programs in it) Debian
 * boots and runs bench-int. Prints the ratio's mean with its 95 % confidence interval (Student's t on the logarithms).
 */

const nrPairs = Number(option('pairs', '20'));
const guest = option('guest', '');
if (guest !== '' && !existsSync(`${guest}/Image`)) {
  process.stderr.write(`bench: ${guest}/Image is absent: run scripts/debian-guest first\n`);
  process.exit(2);
}
if (!(nrPairs >= 2)) {
  process.stderr.write(`bench: --pairs ${option('pairs', '20')} must be 2 at least\n`);
  process.exit(2);
}

const what =
  guest === ''
    ? ['--ram', '64M', '--frames', '96M', '--append', 'passes=2 seed=1']
    : [
        ...['--ram', '128M', '--frames', '160M', '--kernel', `${guest}/Image`, '--initrd', `${guest}/initrd.gz`],
        ...['--append', 'console=ttyS0 quiet unpin.run=bench-int'],
      ];

/** Processor seconds, user and system. */
function run(extra: string[]): number {
  const command = ['node', 'dist/cli/main.js', 'boot', ...what, ...extra].map((arg) => `'${arg}'`).join(' ');
  const script = `TIMEFORMAT='%U %S'; time ${command} >/dev/null 2>&1`;
  const { status, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command}: exit code ${status}`);
  const [user, system] = stderr.trim().split(' ').map(Number);
  return user! + system!;
}

/** Two-sided 95 % points of Student's t with 1 to 30 degrees of freedom, then the normal one. */
const T = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

const logs: number[] = [];
for (let i = 0; i < nrPairs; i++) {
  // Who goes first alternates, so that a drift of the machine favours neither.
  const first = i % 2 === 0 ? [] : ['--pin'];
  const second = i % 2 === 0 ? ['--pin'] : [];
  const [a, b] = [run(first), run(second)];
  const [paged, pinned] = i % 2 === 0 ? [a, b] : [b, a];
  logs.push(Math.log(paged / pinned));
  process.stderr.write(`pair ${i + 1} of ${nrPairs}: notifiers ${paged.toFixed(2)} s, pinned ${pinned.toFixed(2)} s\n`);
}

const mean = logs.reduce((sum, x) => sum + x, 0) / nrPairs;
const variance = logs.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (nrPairs - 1);
const half = (T[nrPairs - 2] ?? 1.96) * Math.sqrt(variance / nrPairs);
const percent = (log: number) => `${((Math.exp(log) - 1) * 100).toFixed(1)} %`;
process.stdout.write(
  `notifiers cost ${percent(mean)} of the processor time of locked RAM (95 %: ${percent(mean - half)} to ${percent(mean + half)}, ${nrPairs} pairs)\n`,
);
