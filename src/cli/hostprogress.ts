import type { Host } from '../mm/index.js';
import { formatSize } from './args.js';

/** One live line on stderr, when it is a terminal: what the host's memory is doing while guests run. */
export class HostProgress {
  private readonly host: Host;
  private readonly enabled: boolean;
  private timer: NodeJS.Timeout | undefined;
  private drawn = false;
  /** Whether something else has the terminal for itself just now. */
  hidden: () => boolean = () => false;

  constructor(host: Host, nrGuests: number) {
    this.host = host;
    // A single guest's console has the terminal for itself.
    this.enabled = process.stderr.isTTY === true && (nrGuests > 1 || process.stdout.isTTY !== true);
  }

  start(): void {
    if (this.enabled) this.timer = setInterval(() => this.draw(), 250);
  }

  private draw(): void {
    if (this.hidden()) return;
    const stats = this.host.stats();
    const used = stats.frames - stats.framesFree;
    const bar = '█'.repeat(Math.round((used / stats.frames) * 20)).padEnd(20, '░');
    process.stderr.write(
      `\r\x1b[K  ${bar} ${formatSize(used * 4096)} of ${formatSize(stats.frames * 4096)} frames` +
        ` · out ${stats.swapOutPages} · in ${stats.swapInPages} · pinned ${stats.pinnedFrames}`,
    );
    this.drawn = true;
  }

  /** Takes the line away, before something else is written to the terminal; it comes back by itself. */
  clear(): void {
    if (this.drawn) process.stderr.write('\r\x1b[K');
    this.drawn = false;
  }

  stop(): void {
    clearInterval(this.timer);
    this.clear();
  }
}
