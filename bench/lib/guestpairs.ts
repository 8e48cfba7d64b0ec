import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Debian's kernel and our own programs in a guest, on Unpin and on QEMU TCG, interleaved, each on one core.
 *
 * Use: `await measurePairs({ guest, commands, runs, ram, frames })`; `guest` is what `scripts/debian-guest` made, with our programs in it
 * (`guests/build --linux`).
 */

export interface PairsOptions {
  readonly guest: string;
  /** What the guest runs, one boot each. */
  readonly commands: readonly string[];
  readonly runs: number;
  readonly ram: string;
  readonly frames: string;
}

/** What one figure came to: seconds, and millions of guest instructions a second on Unpin. */
export interface Pairs {
  readonly unpin: number[];
  readonly qemu: number[];
  readonly mips: number[];
  /** Processor time of the whole process from the figure's beginning to its end; seconds, in steps of 10 ms. None for `boot`. */
  readonly unpinCpu: number[];
  readonly qemuCpu: number[];
}

export interface PairsResult {
  readonly pairs: ReadonlyMap<string, Pairs>;
  /** Resident memory of our process less the frames that were used, bytes, of each run. */
  readonly overheads: readonly number[];
}

interface Run {
  /** Seconds by name: `boot` (to userspace's first line), and what the programs print. */
  readonly seconds: Map<string, number>;
  /** Guest instructions of the same. */
  readonly instructions: Map<string, number>;
  /** Processor time of the process when a figure began, and how much it took. */
  readonly cpuAtBegin: Map<string, number>;
  readonly cpu: Map<string, number>;
  peakRssBytes: number;
}

/** Why it cannot be measured here; undefined where it can. */
export function pairsMissing(guest: string): string | undefined {
  const absent = ['Image', 'initrd.gz'].find((name) => !existsSync(`${guest}/${name}`));
  return absent && `${guest}/${absent} is absent: run scripts/debian-guest first`;
}

export async function measurePairs(options: PairsOptions): Promise<PairsResult> {
  const temporary = mkdtempSync(join(tmpdir(), 'unpin-bench-'));
  const report = join(temporary, 'report.json');
  const pairs = new Map<string, Pairs>();
  const overheads: number[] = [];
  try {
    for (const command of options.commands) {
      for (let i = 0; i < options.runs; i++) {
        const ours = await run(unpin(options, command, report));
        const theirs = await run(qemu(options, command));
        const { host } = JSON.parse(readFileSync(report, 'utf8')) as { host: { framesPeak: number } };
        overheads.push(ours.peakRssBytes - host.framesPeak * 4096);
        notePair(pairs, ours, theirs);
        process.stderr.write(`bench: ${command}: run ${i + 1} of ${options.runs}\n`);
      }
    }
  } finally {
    rmSync(temporary, { recursive: true });
  }
  return { pairs, overheads };
}

function notePair(pairs: Map<string, Pairs>, ours: Run, theirs: Run): void {
  for (const [name, seconds] of ours.seconds) {
    if (!theirs.seconds.has(name)) continue;
    const pair = pairs.get(name) ?? { unpin: [], qemu: [], mips: [], unpinCpu: [], qemuCpu: [] };
    pair.unpin.push(seconds);
    pair.qemu.push(theirs.seconds.get(name)!);
    if (ours.cpu.has(name)) pair.unpinCpu.push(ours.cpu.get(name)!);
    if (theirs.cpu.has(name)) pair.qemuCpu.push(theirs.cpu.get(name)!);
    const instructions = ours.instructions.get(name);
    if (instructions !== undefined) pair.mips.push(instructions / seconds / 1e6);
    pairs.set(name, pair);
  }
}

function append(command: string): string {
  return `console=ttyS0 quiet unpin.run="${command}"`;
}

function unpin({ guest, ram, frames }: PairsOptions, command: string, report: string): string[] {
  return [
    ...['node', 'dist/cli/main.js', 'boot', '--ram', ram, '--frames', frames, '--json', report],
    ...['--kernel', `${guest}/Image`, '--initrd', `${guest}/initrd.gz`, '--append', append(command)],
  ];
}

function qemu({ guest, ram }: PairsOptions, command: string): string[] {
  return [
    ...['qemu-system-riscv64', '-M', 'virt', '-m', ram, '-nographic', '-accel', 'tcg,thread=single'],
    ...['-kernel', `${guest}/Image`, '-initrd', `${guest}/initrd.gz`, '-append', append(command)],
  ];
}

/** Runs to the end, on one core. */
async function run(command: string[]): Promise<Run> {
  const result: Run = {
    ...{ seconds: new Map(), instructions: new Map(), cpuAtBegin: new Map(), cpu: new Map() },
    peakRssBytes: 0,
  };
  const child = spawn('taskset', ['-c', '1', ...command], { stdio: ['ignore', 'pipe', 'ignore'] });
  const start = performance.now();
  const poll = setInterval(() => {
    result.peakRssBytes = Math.max(result.peakRssBytes, peakRss(child.pid!));
  }, 100);
  let rest = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      noteCpu(line.trim(), cpuSeconds(child.pid!), result);
      readLine(line.trim(), (performance.now() - start) / 1000, result);
    }
  });
  await new Promise<void>((resolve, reject) => child.on('close', () => resolve()).on('error', reject));
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

/** Of all its threads, also of those that have ended; 0 once it is gone. */
function cpuSeconds(pid: number): number {
  try {
    // utime and stime, counted from the name's closing bracket, in ticks of 10 ms.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return 0;
  }
}

function noteCpu(line: string, seconds: number, { cpu, cpuAtBegin }: Run): void {
  const begins = /^([\w-]+) begins$/.exec(line);
  if (begins !== null) cpuAtBegin.set(begins[1]!, seconds);
  const ends = /^([\w-]+) \d+\.\d+ s/.exec(line);
  const from = ends === null ? undefined : cpuAtBegin.get(ends[1]!);
  if (from !== undefined && seconds > 0) cpu.set(ends![1]!, seconds - from);
}

function readLine(line: string, seconds: number, { seconds: figures, instructions }: Run): void {
  if (line.includes('unpin: userspace is up') && !figures.has('boot')) figures.set('boot', seconds);
  const match = /^([\w-]+) (\d+\.\d+) s(?: (\d+) instructions)?/.exec(line);
  if (match === null) return;
  figures.set(match[1]!, Number(match[2]));
  if (match[3] !== undefined) instructions.set(match[1]!, Number(match[3]));
}
