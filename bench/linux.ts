import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';

/**
 * Debian's kernel and our own programs in a guest, on Unpin and on QEMU TCG, interleaved in one run.
 *
 *   npm run bench -- linux [--runs 3] [--guest DIR] [--commands 'true,bench-int,bench-fp,bench-mem']
 *
 * DIR is what `scripts/debian-guest` made, with our programs in it (`guests/build --linux`). Prints for each figure the
 * medians of both in seconds, and the ratio with its spread (least and greatest of the pairs).
 */

interface Options {
  runs: number;
  guest: string;
  commands: string[];
}

function parseOptions(argv: string[]): Options {
  const value = (name: string, fallback: string) => {
    const at = argv.indexOf(`--${name}`);
    return at < 0 ? fallback : argv[at + 1]!;
  };
  return {
    runs: Number(value('runs', '3')),
    guest: value('guest', 'debian-guest'),
    commands: value('commands', 'true,bench-int,bench-fp,bench-mem').split(','),
  };
}

type Figures = Map<string, number>;

/** Runs to the end, one core; returns seconds by name: `boot` (to userspace's first line), and what the programs print. */
async function run(command: string[]): Promise<Figures> {
  const figures: Figures = new Map();
  const child = spawn('taskset', ['-c', '1', ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  const start = performance.now();
  let rest = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop()!;
    for (const line of lines) readLine(line.trim(), (performance.now() - start) / 1000, figures);
  });
  await new Promise<void>((resolve) => child.on('close', () => resolve()));
  return figures;
}

function readLine(line: string, seconds: number, figures: Figures): void {
  if (line.includes('unpin-guest: userspace') && !figures.has('boot')) figures.set('boot', seconds);
  const match = /^([\w-]+) (\d+\.\d+)(?: |$)/.exec(line);
  if (match !== null) figures.set(match[1]!, Number(match[2]));
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const options = parseOptions(process.argv.slice(2));
for (const name of ['Image', 'initrd.gz']) {
  if (existsSync(`${options.guest}/${name}`)) continue;
  process.stderr.write(`bench: ${options.guest}/${name} is absent: run scripts/debian-guest first\n`);
  process.exit(2);
}

const append = (command: string) => `console=ttyS0 quiet unpin.run=${command}`;
const files = ['-kernel', `${options.guest}/Image`, '-initrd', `${options.guest}/initrd.gz`];
const unpin = (command: string) => [
  ...['node', 'dist/cli/main.js', 'boot', '--ram', '256M', '--frames', '288M'],
  ...files.map((f) => f.replace(/^-(?=[ki])/, '--')),
  ...['--append', append(command)],
];
const qemu = (command: string) => [
  ...['qemu-system-riscv64', '-M', 'virt', '-m', '256M', '-nographic', '-accel', 'tcg,thread=single'],
  ...[...files, '-append', append(command)],
];

const pairs = new Map<string, { unpin: number[]; qemu: number[] }>();
for (const command of options.commands) {
  for (let i = 0; i < options.runs; i++) {
    const ours = await run(unpin(command));
    const theirs = await run(qemu(command));
    for (const [name, seconds] of ours) {
      if (!theirs.has(name)) continue;
      const pair = pairs.get(name) ?? { unpin: [], qemu: [] };
      pair.unpin.push(seconds);
      pair.qemu.push(theirs.get(name)!);
      pairs.set(name, pair);
    }
    process.stderr.write(`${command}: run ${i + 1} of ${options.runs}\n`);
  }
}

process.stdout.write('figure                unpin s    qemu s   ratio  (least to greatest)\n');
for (const [name, pair] of pairs) {
  const ratios = pair.unpin.map((seconds, i) => seconds / pair.qemu[i]!);
  const cells = [median(pair.unpin).toFixed(3).padStart(8), median(pair.qemu).toFixed(3).padStart(9)];
  const spread = `(${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`;
  process.stdout.write(`${name.padEnd(20)} ${cells.join(' ')} ${median(ratios).toFixed(2).padStart(7)}  ${spread}\n`);
}
