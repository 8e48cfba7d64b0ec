import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { median, option } from './lib/common.js';

/**
 * Debian's kernel and our own programs in a guest, on Unpin and on QEMU TCG, interleaved in one run.
 *
 *   npm run bench -- linux [--runs 3] [--guest DIR] [--commands 'true,bench-int,bench-fp,bench-mem'] [--ram 256M] [--frames 288M]
 *
 * DIR is what `scripts/debian-guest` made, with our programs in it (`guests/build --linux`). Prints for each figure the
 * medians of both in seconds, the ratio with its spread (least and greatest of the pairs), and millions of guest
 * instructions a second on Unpin; then the greatest resident memory of the process, less the frames that were used.
 */

const runs = Number(option('runs', '3'));
const guest = option('guest', 'debian-guest');
const commands = option('commands', 'true,bench-int,bench-fp,bench-mem').split(',');
const ram = option('ram', '256M');
const frames = option('frames', '288M');

interface Run {
  /** Seconds by name: `boot` (to userspace's first line), and what the programs print. */
  seconds: Map<string, number>;
  /** Guest instructions of the same. */
  instructions: Map<string, number>;
  peakRssBytes: number;
}

/** Runs to the end, on one core. */
async function run(command: string[]): Promise<Run> {
  const result: Run = { seconds: new Map(), instructions: new Map(), peakRssBytes: 0 };
  const child = spawn('taskset', ['-c', '1', ...command], { stdio: ['ignore', 'pipe', 'ignore'] });
  const start = performance.now();
  const poll = setInterval(() => {
    result.peakRssBytes = Math.max(result.peakRssBytes, peakRss(child.pid!));
  }, 100);
  let rest = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop()!;
    for (const line of lines) readLine(line.trim(), (performance.now() - start) / 1000, result);
  });
  await new Promise<void>((resolve) => child.on('close', () => resolve()));
  clearInterval(poll);
  return result;
}

/** taskset becomes the command, so that the child's own high-water mark is what we want; 0 once it is gone. */
function peakRss(pid: number): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

function readLine(line: string, seconds: number, { seconds: figures, instructions }: Run): void {
  if (line.includes('unpin: userspace is up') && !figures.has('boot')) figures.set('boot', seconds);
  const match = /^([\w-]+) (\d+\.\d+) s(?: (\d+) instructions)?/.exec(line);
  if (match === null) return;
  figures.set(match[1]!, Number(match[2]));
  if (match[3] !== undefined) instructions.set(match[1]!, Number(match[3]));
}

for (const name of ['Image', 'initrd.gz']) {
  if (existsSync(`${guest}/${name}`)) continue;
  process.stderr.write(`bench: ${guest}/${name} is absent: run scripts/debian-guest first\n`);
  process.exit(2);
}

const temporary = mkdtempSync(join(tmpdir(), 'unpin-bench-'));
const report = join(temporary, 'report.json');
const append = (command: string) => `console=ttyS0 quiet unpin.run=${command}`;
const unpin = (command: string) => [
  ...['node', 'dist/cli/main.js', 'boot', '--ram', ram, '--frames', frames, '--json', report],
  ...['--kernel', `${guest}/Image`, '--initrd', `${guest}/initrd.gz`, '--append', append(command)],
];
const qemu = (command: string) => [
  ...['qemu-system-riscv64', '-M', 'virt', '-m', ram, '-nographic', '-accel', 'tcg,thread=single'],
  ...['-kernel', `${guest}/Image`, '-initrd', `${guest}/initrd.gz`, '-append', append(command)],
];

interface Pairs {
  unpin: number[];
  qemu: number[];
  mips: number[];
}

const pairs = new Map<string, Pairs>();
const overheads: number[] = [];
for (const command of commands) {
  for (let i = 0; i < runs; i++) {
    const ours = await run(unpin(command));
    const theirs = await run(qemu(command));
    const { host } = JSON.parse(readFileSync(report, 'utf8')) as { host: { framesPeak: number } };
    overheads.push(ours.peakRssBytes - host.framesPeak * 4096);
    for (const [name, seconds] of ours.seconds) {
      if (!theirs.seconds.has(name)) continue;
      const pair = pairs.get(name) ?? { unpin: [], qemu: [], mips: [] };
      pair.unpin.push(seconds);
      pair.qemu.push(theirs.seconds.get(name)!);
      const instructions = ours.instructions.get(name);
      if (instructions !== undefined) pair.mips.push(instructions / seconds / 1e6);
      pairs.set(name, pair);
    }
    process.stderr.write(`${command}: run ${i + 1} of ${runs}\n`);
  }
}
rmSync(temporary, { recursive: true });

process.stdout.write('figure                unpin s    qemu s   ratio  (least to greatest)   M instructions/s\n');
for (const [name, pair] of pairs) {
  const ratios = pair.unpin.map((seconds, i) => seconds / pair.qemu[i]!);
  const cells = [median(pair.unpin).toFixed(3).padStart(8), median(pair.qemu).toFixed(3).padStart(9)];
  const spread = `(${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`.padEnd(22);
  const mips = pair.mips.length === 0 ? '' : median(pair.mips).toFixed(0).padStart(8);
  process.stdout.write(
    `${name.padEnd(20)} ${cells.join(' ')} ${median(ratios).toFixed(2).padStart(7)}  ${spread}${mips}\n`,
  );
}
const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
process.stdout.write(
  `resident memory less the frames used: median ${mib(median(overheads))} MiB, greatest ${mib(Math.max(...overheads))} MiB\n`,
);
