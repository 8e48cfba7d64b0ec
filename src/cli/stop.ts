import { constants } from 'node:os';

/**
 * Ctrl-C and its like. The first signal asks whoever listens to come to an end, so that the report is still told; a second one
 * ends the process at once. Either way `exit` listeners run, which remove what must not be left behind.
 *
 * Use: `new StopSignals()` before anything is made, `onStop`, `remove` when all is done.
 */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export class StopSignals {
  /** The first signal that came. */
  signal: NodeJS.Signals | undefined;
  private listener: ((signal: NodeJS.Signals) => void) | undefined;
  private readonly handle = (signal: NodeJS.Signals) => this.receive(signal);

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.handle);
  }

  /** Calls `listener` at the first signal; at once, if that was before. */
  onStop(listener: (signal: NodeJS.Signals) => void): void {
    this.listener = listener;
    if (this.signal !== undefined) listener(this.signal);
  }

  private receive(signal: NodeJS.Signals): void {
    if (this.signal !== undefined) process.exit(exitCodeOf(signal));
    this.signal = signal;
    this.listener?.(signal);
  }

  /** As a shell tells it: 130 after Ctrl-C. Undefined without a signal. */
  get exitCode(): number | undefined {
    return this.signal === undefined ? undefined : exitCodeOf(this.signal);
  }

  remove(): void {
    for (const signal of SIGNALS) process.off(signal, this.handle);
  }
}

function exitCodeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}
