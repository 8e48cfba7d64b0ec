import { randomBytes, randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { KernelError } from '../base/index.js';
import { Kvm, MAX_HELD_PAGES } from '../kvm/index.js';
import { VirtioConsole, VirtioRng } from '../machine/index.js';
import { type Host, type HostStats, MIN_FRAMES, type OomReport, PAGE_SIZE } from '../mm/index.js';
import { nodeEnvironment } from '../node/index.js';
import { BoardGuest, type BoardGuestOptions, type GuestReport } from '../vmm/index.js';
import { formatSize } from './args.js';
import type { BootOptions } from './boot.js';
import { reportText, toJson } from './bootreport.js';
import { ConsoleMux } from './console.js';
import { Disks } from './disks.js';
import { OutputFile, readInput, refuseSameFile, releaseInput } from './files.js';
import { HostProgress } from './hostprogress.js';
import { HostRun } from './hostrun.js';
import { Nets } from './nets.js';
import { Shares } from './shares.js';
import { connectStdin } from './stdin.js';
import { StopSignals } from './stop.js';
import { Terminal } from './terminal.js';
import { TraceRecorder } from './trace.js';

/**
 * The work of `unpin boot`. What was asked for is looked at first, all of it, so that nothing runs that must fail at its end;
 * then come one host memory, its swap, and the guests on it, which run side by side until each is done.
 */

/** Arena of the host memory: for a hart's state and shadow tables of each guest, and decoded code. */
const ARENA_BASE = 64 * 2 ** 20;
const ARENA_PER_GUEST = 16 * 2 ** 20;
const ARENA_PER_THREAD = 11 * 2 ** 20;
/** What Linux credits as a full seed (drivers/char/random.c, BLAKE2S_HASH_SIZE). */
const RNG_SEED_BYTES = 32;
const OUR_GUEST = new URL('../../guests/images/memhog.img', import.meta.url);
const OUR_APPEND = 'passes=2';
const LINUX_APPEND = 'earlycon=sbi';
/** Longest time that Node takes for a timer. */
const FOREVER_MS = 2 ** 31 - 1;

/** What the guests are made of, read and checked. */
interface BootInput {
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
}

interface BootOutput {
  readonly json?: OutputFile;
  readonly trace?: OutputFile;
}

/**
 * Runs the guests to their ends; resolves with the command's exit code. What there is to tell beside the consoles goes to `tell`.
 * Throws KernelError for what cannot work.
 */
export async function bootGuests(options: BootOptions, tell: (text: string) => void = toStderr): Promise<number> {
  checkFrames(options);
  refuseSameFile(filesOf(options));
  const input = readInputs(options);
  const signals = new StopSignals();
  const output: { json?: OutputFile; trace?: OutputFile } = {};
  let run: HostRun | undefined;
  let disks: Disks | undefined;
  let shares: Shares | undefined;
  const nets = new Nets(options.net);
  try {
    disks = await Disks.open(options.disk, options.guests);
    shares = await Shares.open(options.share);
    const onSwapError = (message: string) => tell(`unpin: ${message}\n`);
    const guests: BoardGuest[] = [];
    const onOom = ({ victim, reason }: OomReport) => guests.find(({ mm }) => mm === victim)?.kill('killed', reason);
    run = await HostRun.open({ ...options, arenaBytes: arenaBytes(options), onSwapError, onOom });
    if (options.json !== undefined) output.json = new OutputFile('report', options.json);
    if (options.trace !== undefined) output.trace = new OutputFile('trace', options.trace);
    const mux = createMux(run.host, options);
    await createGuests({ host: run.host, options, input, mux, disks, nets, shares, tell }, guests);
    for (const bytes of Object.values(input)) releaseInput(bytes);
    return await new BootRun(run, options, guests, nets, mux, signals, tell).run(output);
  } catch (error) {
    for (const file of Object.values(output)) file.discard();
    throw error;
  } finally {
    nets.close();
    await run?.close();
    await disks?.close();
    await shares?.close();
    signals.remove();
  }
}

function toStderr(text: string): void {
  process.stderr.write(text);
}

function filesOf(options: BootOptions): Record<string, string | undefined> {
  const { kernel, initrd, swap, json, trace, disk } = options;
  const disks = Object.fromEntries(
    disk.map(({ path }, i) => [disk.length === 1 ? '--disk' : `--disk (${i + 1})`, path]),
  );
  return { '--kernel': kernel, '--initrd': initrd, ...disks, '--swap': swap, '--json': json, '--trace': trace };
}

/** Each vCPU may hold the pages of one instruction while the host still needs its own (N26). */
function checkFrames({ frames, guests, smp }: BootOptions): void {
  const least = (MIN_FRAMES + (guests * smp - 1) * MAX_HELD_PAGES) * PAGE_SIZE;
  if (frames >= least) return;
  const each = smp === 1 ? '' : ` of ${smp} vCPUs`;
  const what = guests === 1 ? `a guest${each}` : `${guests} guests${each}`;
  throw new KernelError(
    'EINVAL',
    'boot',
    `--frames ${formatSize(frames)} must be at least ${formatSize(least)} for ${what} to make progress`,
  );
}

function readInputs(options: BootOptions): BootInput {
  const kernel = options.kernel === undefined ? readFileSync(OUR_GUEST) : readInput('kernel', options.kernel);
  if (options.initrd === undefined) return { kernel };
  return { kernel, initrd: readInput('initrd', options.initrd) };
}

function arenaBytes(options: BootOptions): number {
  const perThread = usesThreads(options) ? ARENA_PER_THREAD : 2 ** 16;
  return ARENA_BASE + options.guests * (ARENA_PER_GUEST + options.ram / 512 + options.smp * perThread);
}

/** One vCPU alone is fastest where the devices are; several want to run at once. */
function usesThreads({ threads, smp, guests }: BootOptions): boolean {
  return threads ?? smp * guests > 1;
}

interface Mux {
  readonly console: ConsoleMux;
  readonly progress: HostProgress;
}

function createMux(host: Host, options: BootOptions): Mux {
  const progress = new HostProgress(host, options.guests);
  const write = (text: string) => {
    progress.clear();
    process.stdout.write(text);
  };
  const names = Array.from({ length: options.guests }, (_, i) => guestName(i));
  const console = new ConsoleMux(write, names);
  progress.hidden = () => console.isHeld || (options.guests > 1 && console.showing !== undefined);
  return { console, progress };
}

function guestName(i: number): string {
  return `guest${i}`;
}

interface GuestParts {
  readonly host: Host;
  readonly options: BootOptions;
  readonly input: BootInput;
  readonly mux: Mux;
  readonly disks: Disks;
  readonly nets: Nets;
  readonly shares: Shares;
  readonly tell: (text: string) => void;
}

async function createGuests(parts: GuestParts, guests: BoardGuest[]): Promise<void> {
  const { host, options, input, mux, tell } = parts;
  const kvm = new Kvm(host, nodeEnvironment(), { blockWhenAlone: true });
  for (let i = 0; i < options.guests; i++) {
    const name = guestName(i);
    const complain = (message: string) => tell(`unpin: ${message}\n`);
    const console = (bytes: Uint8Array) => mux.console.put(i, bytes);
    guests.push(
      await BoardGuest.create({
        name,
        kvm,
        host,
        ramBytes: options.ram,
        nrVcpus: options.smp,
        threads: usesThreads(options),
        ...input,
        bootargs: bootargs(options, i),
        rngSeed: randomBytes(RNG_SEED_BYTES),
        pin: options.pin,
        gunzip: (bytes) => gunzipSync(bytes),
        console,
        ...(await guestDevices(parts, i, console, (message) => complain(`${name}: ${message}`))),
        unixMs: () => Date.now(),
        ...balloonOf(options),
        onDeviceBroken: complain,
      }),
    );
  }
}

/** Refused where it could give nothing back. */
function balloonOf({ balloon, pin }: BootOptions): Pick<BoardGuestOptions, 'balloon'> {
  if (balloon === undefined) return {};
  if (pin) throw new KernelError('EINVAL', 'boot', '--balloon gives memory back, and --pin keeps it: choose one');
  return { balloon: { targetBytes: balloon === true ? 0 : balloon } };
}

/** Where there is PCI, there is a random number generator too. */
async function guestDevices(
  { options, disks, nets, shares }: GuestParts,
  index: number,
  sink: (bytes: Uint8Array) => void,
  onError: (message: string) => void,
): Promise<Pick<BoardGuestOptions, 'devices' | 'hvc'>> {
  const hvc = options.console === 'hvc0' ? { hvc: new VirtioConsole({ sink }) } : {};
  const devices = [...disks.devices(onError), ...(await nets.devices(index)), ...(await shares.devices())];
  if (devices.length === 0 && options.console !== 'hvc0') return hvc;
  return { ...hvc, devices: [...devices, new VirtioRng((bytes) => randomFillSync(bytes))] };
}

/** Our own guests each get a seed of their own, so that no two hold the same pages. */
function bootargs(options: BootOptions, index: number): string {
  if (options.append !== undefined) return options.append;
  return options.kernel === undefined
    ? `${OUR_APPEND} seed=${index + 1}`
    : `console=${options.console} ${LINUX_APPEND}`;
}

/** The guests from their first instruction to the report. */
class BootRun {
  private readonly hostRun: HostRun;
  private readonly options: BootOptions;
  private readonly guests: readonly BoardGuest[];
  private readonly nets: Nets;
  private readonly mux: Mux;
  private readonly signals: StopSignals;
  private readonly out: (text: string) => void;
  /** Frames that are locked while the guests run: afterwards there are none. */
  private readonly pinnedFrames: number;
  private quitting = false;

  constructor(
    hostRun: HostRun,
    options: BootOptions,
    guests: readonly BoardGuest[],
    nets: Nets,
    mux: Mux,
    signals: StopSignals,
    out: (text: string) => void,
  ) {
    this.hostRun = hostRun;
    this.options = options;
    this.guests = guests;
    this.nets = nets;
    this.mux = mux;
    this.signals = signals;
    this.out = out;
    this.pinnedFrames = hostRun.host.stats().pinnedFrames;
  }

  async run(output: BootOutput): Promise<number> {
    const trace = output.trace && new TraceRecorder(this.hostRun.host, this.guests);
    this.signals.onStop((signal) => this.end('killed', `ended by ${signal}`));
    const timer = this.startTimer();
    const disconnect = this.connectKeyboard();
    this.mux.progress.start();
    const reports = await Promise.all(this.guests.map((guest, index) => this.runGuest(guest, index)));
    this.mux.progress.stop();
    disconnect?.();
    clearTimeout(timer);
    this.mux.console.flush();
    const stats = this.stats();
    this.tell(reportText(reports, stats));
    output.json?.write(toJson(reports, stats));
    output.trace?.write(trace!.toJson());
    return this.signals.exitCode ?? (reports.every((report) => report.exit === 'poweroff') ? 0 : 1);
  }

  /** A terminal is raw, with keys of ours; of what else stdin is, a single guest reads all. */
  private connectKeyboard(): (() => void) | undefined {
    const { guests, hostRun, mux, options } = this;
    if (options.keyboard === false) return undefined;
    if (process.stdin.isTTY !== true)
      return guests.length === 1 ? connectStdin((bytes) => guests[0]!.input(bytes)) : undefined;
    const terminal = new Terminal({
      ...{ host: hostRun.host, guests, mux: mux.console, listening: options.kernel !== undefined },
      quit: () => this.quit(),
      write: (text) => this.beside(text),
    });
    return () => terminal.close();
  }

  /** As a signal: the second time it is at once. */
  private quit(): void {
    if (this.quitting) process.exit(1);
    this.quitting = true;
    this.end('killed', 'ended from the keyboard');
  }

  /** Text for who sits at the terminal. */
  private beside(text: string): void {
    this.mux.progress.clear();
    (process.stdout.isTTY ? process.stdout : process.stderr).write(text);
  }

  /** A guest that dies is told of at once: the others go on. */
  private async runGuest(guest: BoardGuest, index: number): Promise<GuestReport> {
    const report = await guest.run();
    this.nets.closeGuest(index);
    if (report.reason !== '') this.tell(`unpin: ${report.name}: ${report.exit}: ${report.reason}\n`);
    return report;
  }

  private stats(): HostStats {
    const stats = this.hostRun.host.stats();
    return { ...stats, pinnedFrames: Math.max(stats.pinnedFrames, this.pinnedFrames) };
  }

  /** Also keeps the process alive while every guest waits for an interrupt. */
  private startTimer(): NodeJS.Timeout {
    const { timeout } = this.options;
    if (timeout === undefined) return setInterval(() => {}, FOREVER_MS);
    return setTimeout(() => this.end('timeout', `still running after ${timeout} s`), timeout * 1000);
  }

  private end(exit: 'killed' | 'timeout', reason: string): void {
    for (const guest of this.guests) guest.kill(exit, reason);
  }

  private tell(text: string): void {
    this.mux.progress.clear();
    this.out(text);
  }
}
