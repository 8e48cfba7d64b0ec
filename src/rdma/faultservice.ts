import type { DeviceImpl } from './device.js';
import { type Failure, type HeldPage, isThere, readAhead, serveFault, type Window, windowOf } from './faults.js';
import type { Mr } from './mr.js';
import { MAX_WINDOW } from './nic/access.js';
import type { FromNic } from './nic/messages.js';

/**
 * What a NIC asks of the mm thread for its pages: faults, which are answered, and windows of read-ahead, which are not (nic/access.ts).
 *
 *   NIC                                      mm thread
 *   fault: waits                             reads of all pages asked for begin, at once
 *                                            the first is there: an entry, and a reference (N26)
 *   copies                                   'faulted'; goes on with the others, as they come
 *   'faultUsed'                              the reference goes
 *   at its mark: 'readAhead'                 the next window, in the same way
 *
 * Progress (N26): from the answer to `faultUsed` the page has a reference, so that no reclaim takes it before the NIC has had its turn with it. That is no pin: the turn is the next
 * thing that the NIC does, and waits for nothing. Pages so held are a part of the frames at most: more faults wait until one is given back.
 */

type Fault = FromNic & { type: 'fault' };
type Ahead = FromNic & { type: 'readAhead' };

const MAX_SERVED = 64;
/** Of all frames, the read-ahead of a device takes an eighth: as many windows of one stream, which has three under way. */
const AHEAD_SHARE = 8;
const WINDOWS = 4;

/** Pages of a window of read-ahead in a host with so many frames. */
export function maxWindowOf(nrFrames: number): number {
  return Math.min(Math.max(1, Math.floor(nrFrames / AHEAD_SHARE / WINDOWS)), MAX_WINDOW);
}

export class FaultService {
  private readonly device: DeviceImpl;
  /** Faults that are served, or answered and not used yet; their page, once there is one. */
  private readonly served = new Map<number, HeldPage | undefined>();
  private readonly maxServed: number;
  private readonly waiting: Fault[] = [];
  private readonly windows = new Set<Window>();
  private readonly maxAhead: number;
  private nrAhead = 0;
  private ended = false;

  constructor(device: DeviceImpl) {
    this.device = device;
    const { nrFrames } = device.host.frames;
    this.maxServed = Math.max(1, Math.min(nrFrames >>> 4, MAX_SERVED));
    this.maxAhead = Math.floor(nrFrames / AHEAD_SHARE);
  }

  /** Serves a fault of the NIC, and tells it; later, if too many are under way. */
  fault(fault: Fault): void {
    if (this.served.size < this.maxServed) void this.serve(fault);
    else this.waiting.push(fault);
  }

  private async serve({ id, key, page, nrPages, write }: Fault): Promise<void> {
    const { device } = this;
    const mr = device.mrOf(key);
    let failure: Failure | undefined;
    this.served.set(id, undefined);
    try {
      if (mr !== undefined && page < mr.nrPages) {
        const { counts } = device;
        failure = await serveFault(mr, page, nrPages, write, counts, turnOf(device), (held) => this.hold(id, held));
        mr.nrFaults++;
      }
      mr?.context.area?.refill();
    } finally {
      device.send({ type: 'faulted', id, failed: failure?.code ?? 0, reason: failure?.error.message });
    }
    if (mr !== undefined && failure === undefined) this.ahead(mr, page + 1, nrPages - 1, write);
  }

  private hold(id: number, held: HeldPage): void {
    if (this.ended) held.mm.putPage(held.pfn);
    else this.served.set(id, held);
  }

  /** The NIC has looked at the answer. */
  used(id: number): void {
    const held = this.served.get(id);
    this.served.delete(id);
    if (held !== undefined) held.mm.putPage(held.pfn);
    const next = this.waiting.shift();
    if (next !== undefined) void this.serve(next);
  }

  get nrHeld(): number {
    let nr = 0;
    for (const held of this.served.values()) if (held !== undefined) nr++;
    return nr;
  }

  /** The NIC will look at nothing any more. */
  end(): void {
    this.ended = true;
    this.waiting.length = 0;
    for (const id of [...this.served.keys()]) this.used(id);
  }

  readAhead({ key, page, nrPages, write }: Ahead): void {
    const mr = this.device.mrOf(key);
    if (mr !== undefined) this.ahead(mr, page, nrPages, write);
  }

  /** Pages that are there are passed over, and so are those that another window brings. */
  private ahead(mr: Mr, page: number, nrPages: number, write: boolean): void {
    const end = Math.min(page + nrPages, mr.nrPages);
    const first = this.firstMissing(mr, page, end, write);
    const nr = Math.min(windowOf(mr, first, end - first), this.maxAhead - this.nrAhead);
    if (nr <= 0 || this.ended) return;
    const window = { mr, page: first, end: first + nr, write };
    this.windows.add(window);
    this.nrAhead += nr;
    void readAhead(window).then(() => {
      this.windows.delete(window);
      this.nrAhead -= nr;
    });
  }

  private firstMissing(mr: Mr, page: number, end: number, write: boolean): number {
    while (page < end) {
      const window = this.windowOf(mr, page, write);
      if (window !== undefined) page = window.end;
      else if (isThere(mr, page, write)) page++;
      else break;
    }
    return Math.min(page, end);
  }

  /** The window that brings the page, with the right. */
  private windowOf(mr: Mr, page: number, write: boolean): Window | undefined {
    for (const window of this.windows)
      if (window.mr === mr && page >= window.page && page < window.end && (window.write || !write)) return window;
    return undefined;
  }
}

function turnOf(device: DeviceImpl): () => Promise<void> {
  return () => device.turn();
}
