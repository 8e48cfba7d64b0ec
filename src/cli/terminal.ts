import { createInterface, type Interface } from 'node:readline';
import { PassThrough } from 'node:stream';
import type { ConsoleMux } from './console.js';
import { EscapeKeys } from './escape.js';
import { Monitor, type MonitorTarget } from './monitor.js';
import { RawTerminal } from './rawterminal.js';

/**
 * Who sits at the terminal: keys go to one guest, or to the monitor, or to us after Ctrl-a. Ctrl-C is a key like any other for a guest that
 * reads keys; where none has the keyboard it is SIGINT, as everywhere. Guests with a virtio console are told the terminal's size.
 *
 * Use: construct when the guests are made, `close` when they are done.
 */

const HELP = `
  Ctrl-a h       this text
  Ctrl-a x       end the guests
  Ctrl-a c       the monitor, and back
  Ctrl-a 0 to 9  give the keyboard to that guest, and show its console alone
  Ctrl-a *       show the lines of all guests; nobody has the keyboard
  Ctrl-a Ctrl-a  a Ctrl-a for the guest
`;
const CTRL_C = 0x03;

export interface TerminalTarget extends Omit<MonitorTarget, 'console'> {
  readonly mux: ConsoleMux;
  /** Whether guests read what is typed. */
  readonly listening: boolean;
  /** Text beside the consoles. */
  write(text: string): void;
}

export class Terminal {
  private readonly target: TerminalTarget;
  private readonly raw = new RawTerminal();
  private readonly monitor: Monitor;
  private readonly keys = new EscapeKeys({ type: (bytes) => this.type(bytes), command: (key) => this.command(key) });
  private readonly feed = (bytes: Buffer) => this.keys.feed(bytes);
  /** SIGWINCH, as Node tells it. */
  private readonly resize = () => {
    const { columns, rows } = process.stdout;
    for (const guest of this.target.guests) guest.resize(columns, rows);
  };
  /** While the monitor has the keyboard. */
  private session: { keys: PassThrough; editor: Interface } | undefined;
  private history: string[] = [];

  constructor(target: TerminalTarget) {
    this.target = target;
    this.monitor = new Monitor({ ...target, console: (i) => this.choose(i) });
    if (target.listening) target.write('unpin: Ctrl-a h tells the keys, Ctrl-a x ends the run\n');
    process.stdin.on('data', this.feed).on('error', ignore);
    if (!process.stdout.isTTY) return;
    this.resize();
    process.stdout.on('resize', this.resize);
  }

  close(): void {
    this.leaveMonitor();
    process.stdout.off('resize', this.resize);
    process.stdin.off('data', this.feed).pause();
    this.raw.restore();
    if ('unref' in process.stdin) process.stdin.unref();
  }

  private type(bytes: Uint8Array): void {
    const { mux, guests, listening } = this.target;
    if (this.session !== undefined) this.session.keys.write(bytes);
    else if (mux.showing !== undefined && listening) guests[mux.showing]!.input(bytes);
    else if (bytes.includes(CTRL_C)) process.emit('SIGINT', 'SIGINT');
  }

  private command(key: string): void {
    if (key === 'x') this.target.quit();
    else if (key === 'c') this.toggleMonitor();
    else if (key === '*') this.choose(undefined);
    else if (/\d/.test(key)) this.chooseByKey(Number(key));
    else this.target.write(HELP);
  }

  private chooseByKey(i: number): void {
    const { length } = this.target.guests;
    if (i < length) this.choose(i);
    else this.target.write(`\nunpin: there is no guest ${i}: the last one is ${length - 1}\n`);
  }

  private choose(i: number | undefined): void {
    const { guests, mux, write } = this.target;
    this.leaveMonitor();
    if (guests.length > 1)
      write(`\nunpin: ${i === undefined ? 'all guests' : `${guests[i]!.name} has the keyboard`}\n`);
    mux.show(i);
  }

  private toggleMonitor(): void {
    if (this.session === undefined) this.enterMonitor();
    else this.leaveMonitor();
  }

  /** The guests run on, and what they write is kept until it is left. */
  private enterMonitor(): void {
    this.target.mux.hold();
    const keys = new PassThrough();
    const editor = createInterface({
      ...{ input: keys, output: process.stdout.isTTY ? process.stdout : process.stderr, terminal: true },
      ...{
        prompt: '(unpin) ',
        history: this.history,
        completer: (line: string) => [this.monitor.complete(line), line],
      },
    });
    this.session = { keys, editor };
    editor.on('history', (history) => (this.history = history));
    editor.on('line', (line) => void this.execute(line));
    editor.on('SIGINT', () => this.leaveMonitor());
    editor.on('close', () => this.leaveMonitor());
    this.target.write("\nunpin: the monitor; 'help' tells the commands, Ctrl-a c leaves it\n");
    editor.prompt();
  }

  private async execute(line: string): Promise<void> {
    const answer = await this.monitor.execute(line);
    if (this.session === undefined) return;
    this.target.write(answer);
    this.session.editor.prompt();
  }

  private leaveMonitor(): void {
    const { session } = this;
    if (session === undefined) return;
    this.session = undefined;
    session.editor.close();
    this.target.write('\r\x1b[K');
    this.target.mux.release();
  }
}

function ignore(): void {}
