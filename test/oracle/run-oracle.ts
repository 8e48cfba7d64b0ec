import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { describeResult } from './compare.js';
import { LinuxPeer, linuxMissing } from './linux.js';
import { describeFailure, type Failure, Oracle } from './oracle.js';
import { CALL_NAMES, type CallName, describeStep, type Program } from './step.js';

/**
 * Random programs on the Linux of this machine and on Unpin.
 *
 *   npm run oracle -- [--seed N] [--steps M] [--runs K] [--calls mmap,munmap,...] [--pressure] [--verbose] [--program FILE]
 *
 * Runs seeds N to N + K - 1. Exit code 1 at the first that differs, with its smallest program; 2 where there is no Linux.
 */
const HELP = `usage: npm run oracle -- [options]
  --seed N        first seed (default 1)
  --steps M       steps of a program (default 300)
  --runs K        seeds to run (default 50; 0: until it is stopped)
  --calls A,B     make programs of these calls alone: ${CALL_NAMES.join(', ')}
  --pressure      few frames, and reclaim between the steps: contents and errno must agree still
  --program FILE  run this program (as printed by --verbose) instead of seeds
  --verbose       print what both sides answered, and the program as JSON
`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    steps: { type: 'string', default: '300' },
    runs: { type: 'string', default: '50' },
    calls: { type: 'string' },
    program: { type: 'string' },
    pressure: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function number(name: 'seed' | 'steps' | 'runs', least: number): number {
  const value = Number(values[name]);
  if (Number.isInteger(value) && value >= least && value < 2 ** 31) return value;
  return usage(`--${name} ${values[name]} must be an integer from ${least} up`);
}

function calls(): CallName[] | undefined {
  const names = values.calls?.split(',');
  for (const name of names ?? []) if (!(CALL_NAMES as string[]).includes(name)) usage(`--calls: no call '${name}'`);
  return names as CallName[] | undefined;
}

function usage(why: string): never {
  process.stderr.write(`oracle: ${why}\n${HELP}`);
  process.exit(2);
}

function columns(failure: Failure): string {
  const rows = failure.program.steps.map((step, i) => {
    const answer = (trace: Failure['linux']) => {
      const outcome = trace.outcomes[i];
      return outcome === undefined ? '-' : describeResult(outcome.ret);
    };
    return [answer(failure.linux), answer(failure.unpin), describeStep(step)] as const;
  });
  const width = (k: 0 | 1) => Math.max(5, ...rows.map((row) => row[k].length));
  const [left, right] = [width(0), width(1)];
  const head = `${'Linux'.padEnd(left)}  ${'Unpin'.padEnd(right)}  step`;
  return [head, ...rows.map(([a, b, c]) => `${a.padEnd(left)}  ${b.padEnd(right)}  ${c}`)].join('\n');
}

async function report(oracle: Oracle, failure: Failure, where: string): Promise<void> {
  process.stdout.write(`${where}: differs at step ${failure.difference.at}; making it smaller\n`);
  const smallest = await oracle.shrunk(failure);
  process.stdout.write(`${where}, ${smallest.program.steps.length} steps left\n${describeFailure(smallest)}\n`);
  if (values.verbose) process.stdout.write(`\n${columns(smallest)}\n\n${JSON.stringify(smallest.program)}\n`);
}

async function runSeeds(oracle: Oracle): Promise<void> {
  const [first, nrSteps, runs] = [number('seed', 0), number('steps', 1), number('runs', 0)];
  const began = Date.now();
  let last = began;
  for (let seed = first; runs === 0 || seed < first + runs; seed++) {
    const failure = await oracle.runSeed(seed, nrSteps);
    if (failure !== undefined) {
      await report(oracle, failure, `seed ${seed}`);
      process.exitCode = 1;
      return;
    }
    if (Date.now() - last > 1000 && process.stderr.isTTY) {
      last = Date.now();
      const speed = (seed - first + 1) / ((last - began) / 1000);
      process.stderr.write(`\rseed ${seed}: ${speed.toFixed(1)} seeds/s `);
    }
  }
  const seconds = (Date.now() - began) / 1000;
  const speed = `${seconds.toFixed(1)} s, ${(runs / seconds).toFixed(1)} seeds/s`;
  process.stdout.write(
    `seeds ${first} to ${first + runs - 1}, ${nrSteps} steps each: Linux and Unpin agree (${speed})\n`,
  );
}

async function runFile(oracle: Oracle, file: string): Promise<void> {
  const failure = await oracle.runProgram(JSON.parse(readFileSync(file, 'utf8')) as Program);
  if (failure === undefined) process.stdout.write('Linux and Unpin agree\n');
  else {
    await report(oracle, failure, file);
    process.exitCode = 1;
  }
}

if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
const missing = linuxMissing();
if (missing !== undefined) {
  process.stderr.write(`oracle: cannot run here: ${missing}\n`);
  process.exit(2);
}
const onlyCalls = calls();
const peer = await LinuxPeer.start();
try {
  const oracle = new Oracle(peer, { pressure: values.pressure, ...(onlyCalls && { onlyCalls }) });
  if (values.program !== undefined) await runFile(oracle, values.program);
  else await runSeeds(oracle);
} finally {
  peer.stop();
}
