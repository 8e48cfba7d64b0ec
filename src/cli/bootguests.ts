import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Kvm } from '../kvm/index.js';
import { Host, type HostStats } from '../mm/index.js';
import { type FileSwap, nodeEnvironment, openFileSwap } from '../node/index.js';
import { BoardGuest, type GuestReport } from '../vmm/index.js';
import { formatSize } from './args.js';
import type { BootOptions } from './boot.js';
import { ConsoleMux } from './console.js';
import { readInput, writeOutput } from './files.js';
import { HostProgress } from './hostprogress.js';
import { table } from './table.js';
import { TraceRecorder } from './trace.js';

/**
 * The work of `unpin boot`: one host memory, its swap, the guests on it; they run side by side until each is done.
 * The swap file goes away however it ends: normally, by an error, or by Ctrl-C.
 */

/** Arena of the host memory: for a hart's state and shadow tables of each guest, and decoded code. */
const ARENA_BASE = 64 * 2 ** 20;
const ARENA_PER_GUEST = 16 * 2 ** 20;
const OUR_GUEST = new URL('../../guests/images/memhog.img', import.meta.url);
const OUR_APPEND = 'passes=2';
const LINUX_APPEND = 'console=ttyS0 earlycon=sbi';

export async function bootGuests(options: BootOptions): Promise<number> {
  const swapPath = options.swap ?? join(tmpdir(), `unpin-${process.pid}.swap`);
  const swap = await openFileSwap(swapPath, { sizeBytes: options.swapSize });
  const removeSwap = () => swap.unlinkSync();
  process.once('exit', removeSwap);
  try {
    const host = new Host({ frames: options.frames / 4096, arenaBytes: arenaBytes(options), swap });
    const code = await runGuests(host, options);
    await host.stop();
    return code;
  } finally {
    await closeQuietly(swap);
    process.off('exit', removeSwap);
  }
}

async function closeQuietly(swap: FileSwap): Promise<void> {
  await swap.close().catch(() => swap.unlinkSync());
}

function arenaBytes(options: BootOptions): number {
  return ARENA_BASE + options.guests * (ARENA_PER_GUEST + options.ram / 512);
}

async function runGuests(host: Host, options: BootOptions): Promise<number> {
  const mux = new ConsoleMux((text) => process.stdout.write(text), options.guests);
  const guests = await createGuests(host, options, mux);
  const trace = options.trace === undefined ? undefined : new TraceRecorder(host, guests);
  const restore = endOnSignals(guests);
  const timer = endOnTimeout(guests, options.timeout);
  const progress = new HostProgress(host, options.guests);
  const reports = await Promise.all(guests.map((guest) => guest.run()));
  progress.stop();
  clearTimeout(timer);
  restore();
  mux.flush();
  tell(reports, host.stats());
  if (options.json !== undefined) writeOutput('report', options.json, toJson(reports, host.stats()));
  if (options.trace !== undefined) writeOutput('trace', options.trace, trace!.toJson());
  return reports.every((report) => report.exit === 'poweroff') ? 0 : 1;
}

async function createGuests(host: Host, options: BootOptions, mux: ConsoleMux): Promise<BoardGuest[]> {
  const kernel = options.kernel === undefined ? readFileSync(OUR_GUEST) : readInput('kernel', options.kernel);
  const initrd = options.initrd === undefined ? undefined : readInput('initrd', options.initrd);
  const kvm = new Kvm(host, nodeEnvironment());
  const guests: BoardGuest[] = [];
  for (let i = 0; i < options.guests; i++) {
    const name = `guest${i}`;
    guests.push(
      await BoardGuest.create({
        name,
        kvm,
        host,
        ramBytes: options.ram,
        kernel,
        ...(initrd && { initrd }),
        bootargs: bootargs(options, i),
        pin: options.pin,
        gunzip: (bytes) => gunzipSync(bytes),
        console: (bytes) => mux.put(name, bytes),
      }),
    );
  }
  return guests;
}

/** Our own guests each get a seed of their own, so that no two hold the same pages. */
function bootargs(options: BootOptions, index: number): string {
  if (options.append !== undefined) return options.append;
  return options.kernel === undefined ? `${OUR_APPEND} seed=${index + 1}` : LINUX_APPEND;
}

/** Ctrl-C ends the guests, so that the report is still told and the swap file goes; a second one is the system's. */
function endOnSignals(guests: readonly BoardGuest[]): () => void {
  const end = () => {
    for (const guest of guests) guest.kill('killed', 'interrupted');
  };
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  return () => {
    process.off('SIGINT', end);
    process.off('SIGTERM', end);
  };
}

function endOnTimeout(guests: readonly BoardGuest[], seconds: number | undefined): NodeJS.Timeout | undefined {
  if (seconds === undefined) return undefined;
  return setTimeout(() => {
    for (const guest of guests) guest.kill('timeout', `still running after ${seconds} s`);
  }, seconds * 1000);
}

export function toJson(guests: readonly GuestReport[], host: HostStats): string {
  return `${JSON.stringify({ guests, host }, null, 2)}\n`;
}

function tell(guests: readonly GuestReport[], host: HostStats): void {
  const rows = guests.map((g) => [
    g.name,
    g.exit,
    formatSize(g.ramBytes),
    formatSize(g.residentPeakBytes),
    `${(g.wallMs / 1000).toFixed(1)} s`,
    `${(g.instructions / 1e6).toFixed(0)} M`,
    String(g.faults.minor),
    String(g.faults.major),
  ]);
  const head = ['guest', 'exit', 'RAM', 'peak', 'wall', 'instructions', 'minor', 'major'];
  process.stderr.write(`\n${table([head, ...rows])}\n`);
  const ram = guests.reduce((sum, g) => sum + g.ramBytes, 0);
  process.stderr.write(
    `\n  ${formatSize(ram)} of guest RAM in ${formatSize(host.frames * 4096)} of frames; ` +
      `swapped out ${host.swapOutPages} pages, in ${host.swapInPages}; pinned ${host.pinnedFrames}\n`,
  );
  for (const g of guests) if (g.reason !== '') process.stderr.write(`  ${g.name}: ${g.exit}: ${g.reason}\n`);
}
