import type { Host } from '../mm/index.js';
import { formatSize } from './args.js';

/** One live line on stderr, when it is a terminal: what the host's memory is doing while guests run. */
export class HostProgress {
  private readonly host: Host;
  private readonly timer: NodeJS.Timeout | undefined;

  constructor(host: Host, nrGuests: number) {
    this.host = host;
    // A single guest's console has the terminal for itself.
    if (process.stderr.isTTY && (nrGuests > 1 || !process.stdout.isTTY))
      this.timer = setInterval(() => this.draw(), 250);
  }

  private draw(): void {
    const stats = this.host.stats();
    const used = stats.frames - stats.framesFree;
    const bar = '█'.repeat(Math.round((used / stats.frames) * 20)).padEnd(20, '░');
    process.stderr.write(
      `\r\x1b[K  ${bar} ${formatSize(used * 4096)} of ${formatSize(stats.frames * 4096)} frames` +
        ` · out ${stats.swapOutPages} · in ${stats.swapInPages} · pinned ${stats.pinnedFrames}`,
    );
  }

  stop(): void {
    if (this.timer === undefined) return;
    clearInterval(this.timer);
    process.stderr.write('\r\x1b[K');
  }
}
