import type { Host, MmuNotifierRange, MmuSubscription } from '../mm/index.js';
import { MMU_NOTIFY_NAMES, mmuNotifierRegister, VA_SIZE } from '../mm/index.js';
import type { BoardGuest } from '../vmm/index.js';

/**
 * `--trace`: what happened when, in the Chrome trace event format, which opens in Perfetto. One track a guest with the
 * notifier's brackets and the waits for memory, and counters of the host's frames and swap traffic.
 */

interface TraceEvent {
  name: string;
  ph: 'B' | 'E' | 'X' | 'C' | 'M';
  ts: number;
  pid: number;
  tid: number;
  dur?: number;
  args?: Record<string, number | string>;
}

const COUNTER_PERIOD_MS = 50;
/** Beyond this many events the trace keeps its beginning and says that it was cut. */
const MAX_EVENTS = 1_000_000;

export class TraceRecorder {
  private readonly host: Host;
  private readonly events: TraceEvent[] = [];
  private readonly timer: NodeJS.Timeout;
  private dropped = 0;

  constructor(host: Host, guests: readonly BoardGuest[]) {
    this.host = host;
    guests.forEach((guest, i) => {
      this.put({ name: 'thread_name', ph: 'M', ts: 0, pid: 1, tid: i + 1, args: { name: guest.name } });
      mmuNotifierRegister(guest.mm, 0, VA_SIZE, this.bracketOps(i + 1));
      guest.onWait = (gpa, startMs, endMs) => this.wait(i + 1, gpa, startMs, endMs);
    });
    this.timer = setInterval(() => this.counters(), COUNTER_PERIOD_MS);
    this.timer.unref();
  }

  private put(event: TraceEvent): void {
    if (this.events.length < MAX_EVENTS) this.events.push(event);
    else this.dropped++;
  }

  private bracketOps(tid: number) {
    return {
      invalidateRangeStart: (_sub: MmuSubscription, range: MmuNotifierRange) => {
        const args = { event: MMU_NOTIFY_NAMES[range.event]!, pages: countPages(range) };
        this.put({ name: 'invalidate', ph: 'B', ts: nowUs(), pid: 1, tid, args });
      },
      invalidateRangeEnd: () => this.put({ name: 'invalidate', ph: 'E', ts: nowUs(), pid: 1, tid }),
    };
  }

  private wait(tid: number, gpa: number, startMs: number, endMs: number): void {
    const args = { gpa: `0x${gpa.toString(16)}` };
    this.put({ name: 'fault', ph: 'X', ts: startMs * 1000, dur: (endMs - startMs) * 1000, pid: 1, tid, args });
  }

  private counters(): void {
    const stats = this.host.stats();
    const args = { used: stats.frames - stats.framesFree, pinned: stats.pinnedFrames };
    this.put({ name: 'frames', ph: 'C', ts: nowUs(), pid: 1, tid: 0, args });
    const swap = { out: stats.swapOutPages, in: stats.swapInPages };
    this.put({ name: 'swap', ph: 'C', ts: nowUs(), pid: 1, tid: 0, args: swap });
  }

  toJson(): string {
    clearInterval(this.timer);
    return JSON.stringify({ traceEvents: this.events, otherData: { droppedEvents: this.dropped } });
  }
}

function nowUs(): number {
  return performance.now() * 1000;
}

function countPages(range: MmuNotifierRange): number {
  let nrPages = 0;
  for (let i = 0; i < range.nrRanges; i++) nrPages += range.ranges[2 * i + 1]! - range.ranges[2 * i]!;
  return nrPages;
}
