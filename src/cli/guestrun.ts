import type { Host, HostStats, OomReport } from '../mm/index.js';
import type { Guest, GuestReport } from '../vmm/index.js';
import { reportText } from './bootreport.js';
import { ConsoleMux } from './console.js';
import { OutputFile } from './files.js';
import { HostProgress } from './hostprogress.js';
import { HostRun } from './hostrun.js';
import { connectStdin } from './stdin.js';
import { StopSignals } from './stop.js';
import { Terminal } from './terminal.js';

/**
 * Guests on one host memory, from its making to the report, whichever driver they run by: consoles, progress, keyboard, signals, timeout, exit code.
 * What was asked for is looked at first, all of it, so that nothing runs that must fail at its end.
 *
 * Use: `await runGuests(options, create)`; `create` makes the guests on the host that it gets.
 */

/** Longest time that Node takes for a timer. */
const FOREVER_MS = 2 ** 31 - 1;

export interface GuestRunOptions {
  /** Guests that `create` will make. */
  readonly guests: number;
  /** Host memory, bytes. */
  readonly frames: number;
  readonly arenaBytes: number;
  readonly swap?: string;
  readonly swapSize: number;
  /** Seconds. */
  readonly timeout?: number;
  /** Whether stdin is the guests' keyboard; false for who shows guests and reads nothing. */
  readonly keyboard?: boolean;
  /** Whether guests read what is typed. */
  readonly listening: boolean;
  /** Files that are written at the end; opened before the guests are made. */
  readonly outputs: readonly OutputOption[];
  /** Told of what there is beside the consoles. */
  readonly tell: (text: string) => void;
}

export interface OutputOption {
  /** For messages: 'report'. */
  readonly what: string;
  readonly path: string | undefined;
  readonly text: (reports: readonly GuestReport[], stats: HostStats) => string;
}

/** Where guests are made. */
export interface GuestPlace {
  readonly host: Host;
  readonly nameOf: (index: number) => string;
  /** What guest `index` writes on its console. */
  readonly put: (index: number, bytes: Uint8Array) => void;
  /** Each guest is announced as soon as it is there: it may be the one that dies where memory is full. */
  readonly add: (guest: Guest) => void;
  /** One line for the user, beside the consoles. */
  readonly complain: (message: string) => void;
}

/** For `tell`. */
export function toStderr(text: string): void {
  process.stderr.write(text);
}

/** Runs the guests to their ends; resolves with the command's exit code. Throws KernelError for what cannot work. */
export async function runGuests(
  options: GuestRunOptions,
  create: (place: GuestPlace) => Promise<void>,
  onGuestEnd: (index: number) => void = () => {},
): Promise<number> {
  const signals = new StopSignals();
  const outputs: OutputFile[] = [];
  const complain = (message: string) => options.tell(`unpin: ${message}\n`);
  const guests: Guest[] = [];
  const onOom = ({ victim, reason }: OomReport) => guests.find(({ mm }) => mm === victim)?.kill('killed', reason);
  let run: HostRun | undefined;
  try {
    run = await HostRun.open({ ...options, onSwapError: complain, onOom });
    const named = options.outputs.filter(({ path }) => path !== undefined);
    for (const { what, path } of named) outputs.push(new OutputFile(what, path!));
    const { host } = run;
    const mux = createMux(host, options.guests);
    const put = (index: number, bytes: Uint8Array) => mux.console.put(index, bytes);
    await create({ host, nameOf: guestName, put, add: (guest) => guests.push(guest), complain });
    const { reports, stats, code } = await new GuestRun(host, options, guests, mux, signals, onGuestEnd).run();
    for (const [i, output] of outputs.entries()) output.write(named[i]!.text(reports, stats));
    return code;
  } catch (error) {
    for (const file of outputs) file.discard();
    throw error;
  } finally {
    await run?.close();
    signals.remove();
  }
}

interface Mux {
  readonly console: ConsoleMux;
  readonly progress: HostProgress;
}

function createMux(host: Host, nrGuests: number): Mux {
  const progress = new HostProgress(host, nrGuests);
  const write = (text: string) => {
    progress.clear();
    process.stdout.write(text);
  };
  const names = Array.from({ length: nrGuests }, (_, i) => guestName(i));
  const console = new ConsoleMux(write, names);
  progress.hidden = () => console.isHeld || (nrGuests > 1 && console.showing !== undefined);
  return { console, progress };
}

function guestName(i: number): string {
  return `guest${i}`;
}

interface Ended {
  readonly reports: readonly GuestReport[];
  readonly stats: HostStats;
  readonly code: number;
}

/** The guests from their first instruction to the report. */
class GuestRun {
  private readonly host: Host;
  private readonly options: GuestRunOptions;
  private readonly guests: readonly Guest[];
  private readonly mux: Mux;
  private readonly signals: StopSignals;
  private readonly onGuestEnd: (index: number) => void;
  /** Frames that are locked while the guests run: afterwards there are none. */
  private readonly pinnedFrames: number;
  private quitting = false;

  constructor(
    host: Host,
    options: GuestRunOptions,
    guests: readonly Guest[],
    mux: Mux,
    signals: StopSignals,
    onGuestEnd: (index: number) => void,
  ) {
    this.host = host;
    this.options = options;
    this.guests = guests;
    this.mux = mux;
    this.signals = signals;
    this.onGuestEnd = onGuestEnd;
    this.pinnedFrames = host.stats().pinnedFrames;
  }

  async run(): Promise<Ended> {
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
    const code = this.signals.exitCode ?? (reports.every((report) => report.exit === 'poweroff') ? 0 : 1);
    return { reports, stats, code };
  }

  /** A terminal is raw, with keys of ours; of what else stdin is, a single guest reads all. */
  private connectKeyboard(): (() => void) | undefined {
    const { guests, host, mux, options } = this;
    if (options.keyboard === false) return undefined;
    if (process.stdin.isTTY !== true)
      return guests.length === 1 ? connectStdin((bytes) => guests[0]!.input(bytes)) : undefined;
    const terminal = new Terminal({
      ...{ host, guests, mux: mux.console, listening: options.listening },
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
  private async runGuest(guest: Guest, index: number): Promise<GuestReport> {
    const report = await guest.run();
    this.onGuestEnd(index);
    if (report.reason !== '') this.tell(`unpin: ${report.name}: ${report.exit}: ${report.reason}\n`);
    return report;
  }

  private stats(): HostStats {
    const stats = this.host.stats();
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
    this.options.tell(text);
  }
}
