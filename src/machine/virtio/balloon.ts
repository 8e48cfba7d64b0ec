import type { DescriptorChain, GuestRun } from './chain.js';
import { QueueServer, VIRTIO_ID_BALLOON, type VirtioDevice, type VirtioTransport } from './device.js';
import { Pump } from './pump.js';
import type { Virtqueue } from './queue.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * virtio-balloon: the guest's way of giving memory back. Pages that it puts into the balloon, because we ask for them (`targetPages`), and pages that it
 * reports free of its own accord, lose their contents and their frames; the next use of one finds zeros, like memory that was never touched.
 *
 * What it names that is no RAM is ignored: it is its own memory that a guest can lose by this, and no more.
 *
 * Queues are numbered as QEMU and Linux number them, one after the other in the order of the specification, without gaps for what was not agreed on.
 *
 * Source: VIRTIO 1.2, 5.5. Use: `new VirtioBalloon({ memory })`; `targetPages = n`; `await stats()`.
 */

const PCI_CLASS_OTHERS = 0xff0000;
export const VIRTIO_BALLOON_F_STATS_VQ = 1n;
export const VIRTIO_BALLOON_F_DEFLATE_ON_OOM = 2n;
export const VIRTIO_BALLOON_F_REPORTING = 5n;

/** Whatever the guest's page size. */
const BALLOON_PAGE_BYTES = 4096;
const PFN_BYTES = 4;
const QUEUE_SIZE = 128;
/** Frame numbers that are read at once. */
const PIECE_PFNS = 1024;
const NUM_PAGES = 0;
const ACTUAL = 4;
const CONFIG_BYTES = 16;
const STAT_BYTES = 10;
const MAX_STATS_BYTES = 64 * STAT_BYTES;

/** Tags of the statistics queue, in their order. */
const STAT_NAMES = [
  ...(['swapIn', 'swapOut', 'majorFaults', 'minorFaults', 'freeMemory', 'totalMemory', 'availableMemory'] as const),
  ...(['diskCaches', 'hugetlbAllocations', 'hugetlbFailures', 'oomKills', 'allocStalls', 'asyncScans'] as const),
  ...(['directScans', 'asyncReclaims', 'directReclaims'] as const),
] as const;

/** What the guest says of its memory: bytes and counts, as far as its driver knows them. */
export type BalloonStats = { [name in (typeof STAT_NAMES)[number]]?: number };

/** The guest's memory, as far as a balloon needs it. */
export interface BalloonMemory {
  /** Takes the contents of all pages that lie wholly in `runs`, and their frames: they read as zeros afterwards. What is not RAM is ignored. */
  discard(runs: readonly GuestRun[]): Promise<void> | void;
}

export interface VirtioBalloonOptions {
  readonly memory: BalloonMemory;
  /** `actualPages` has changed. */
  readonly onActual?: (pages: number) => void;
}

type QueueKind = 'inflate' | 'deflate' | 'stats' | 'reporting';

export class VirtioBalloon implements VirtioDevice {
  readonly name = 'virtio-balloon';
  readonly deviceId = VIRTIO_ID_BALLOON;
  readonly pciClass = PCI_CLASS_OTHERS;
  readonly features =
    (1n << VIRTIO_BALLOON_F_STATS_VQ) | (1n << VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | (1n << VIRTIO_BALLOON_F_REPORTING);
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(CONFIG_BYTES);
  /** Bytes that the guest has given back, by the balloon and by reporting, however often it took them again. */
  readonly counts = { inflatedBytes: 0, deflatedBytes: 0, reportedBytes: 0 };
  private readonly view = new DataView(this.config.buffer);
  private readonly options: VirtioBalloonOptions;
  private transport: VirtioTransport | undefined;
  private servers: (QueueServer | undefined)[] = [];
  private statsQueue: Virtqueue | undefined;
  private statsPump: Pump | undefined;
  /** The driver's statistics, which it gets back when we want new ones. */
  private statsChain: DescriptorChain | undefined;
  private statsWaiters: ((stats: BalloonStats | undefined) => void)[] = [];

  constructor(options: VirtioBalloonOptions) {
    this.options = options;
  }

  /** Pages of 4 KiB that the guest is asked to keep in the balloon. It gives them as it can; with its own memory short it takes them back. */
  get targetPages(): number {
    return this.view.getUint32(NUM_PAGES, true);
  }

  set targetPages(pages: number) {
    if (pages === this.targetPages) return;
    this.view.setUint32(NUM_PAGES, pages, true);
    this.transport?.configChanged();
  }

  /** Pages that are in the balloon, as the guest says. */
  get actualPages(): number {
    return this.view.getUint32(ACTUAL, true);
  }

  attach(transport: VirtioTransport): void {
    this.transport = transport;
  }

  start(queues: readonly (Virtqueue | undefined)[], features: bigint): void {
    const kinds = queueKinds(features);
    this.servers = queues.map((queue, index) => queue && this.server(queue, kinds[index]));
    // Linux offers its statistics, and notifies, before it says that it is ready.
    this.statsPump?.kick();
  }

  private server(queue: Virtqueue, kind: QueueKind | undefined): QueueServer | undefined {
    switch (kind) {
      case 'inflate':
        return new QueueServer(queue, (chain) => runSteps(this.inflate(chain)));
      case 'deflate':
        return new QueueServer(queue, (chain) => this.deflate(chain));
      case 'reporting':
        return new QueueServer(queue, (chain) => runSteps(this.report(chain)));
      case 'stats':
        this.statsQueue = queue;
        this.statsPump = new Pump(() => runSteps(this.takeStats(queue)));
        return undefined;
      default:
        return undefined;
    }
  }

  notify(index: number): void {
    const server = this.servers[index];
    if (server !== undefined) server.notify();
    else if (index === STATS_INDEX) this.statsPump?.kick();
  }

  reset(): void {
    this.servers = [];
    this.statsQueue = undefined;
    this.statsPump = undefined;
    this.statsChain = undefined;
    this.answerStats(undefined);
    this.setActual(0);
  }

  writeConfig(offset: number, lenBytes: number, value: number): void {
    if (offset === ACTUAL && lenBytes === 4) this.setActual(value >>> 0);
  }

  private setActual(pages: number): void {
    if (pages === this.actualPages) return;
    this.view.setUint32(ACTUAL, pages, true);
    this.options.onActual?.(pages);
  }

  /** A chain of frame numbers, which the guest does not use any more. */
  private *inflate(chain: DescriptorChain): Steps<number> {
    for (let at = 0; at + PFN_BYTES <= chain.readableBytes; at += PIECE_PFNS * PFN_BYTES) {
      const nrBytes = Math.min(PIECE_PFNS * PFN_BYTES, chain.readableBytes - at);
      const pfns = new DataView(new ArrayBuffer(nrBytes - (nrBytes % PFN_BYTES)));
      yield* wait(chain.read(at, new Uint8Array(pfns.buffer)));
      yield* wait(this.options.memory.discard(runsOf(pfns)));
      this.counts.inflatedBytes += pfns.byteLength * (BALLOON_PAGE_BYTES / PFN_BYTES);
    }
    return 0;
  }

  /** Nothing is to be done: whoever uses a page that he took out of the balloon gets it. */
  private deflate(chain: DescriptorChain): number {
    this.counts.deflatedBytes += Math.floor(chain.readableBytes / PFN_BYTES) * BALLOON_PAGE_BYTES;
    return 0;
  }

  /** A chain whose own memory is free; the guest does not touch it before it gets the chain back. */
  private *report(chain: DescriptorChain): Steps<number> {
    yield* wait(this.options.memory.discard(chain.writable));
    this.counts.reportedBytes += chain.writableBytes;
    return 0;
  }

  /** Statistics of the guest as they are now; undefined where its driver has none, or ends meanwhile. */
  stats(): Promise<BalloonStats | undefined> {
    const { statsQueue, statsChain } = this;
    if (statsQueue === undefined) return Promise.resolve(undefined);
    const answer = new Promise<BalloonStats | undefined>((resolve) => this.statsWaiters.push(resolve));
    // Not there while an earlier question is open: its answer is ours too.
    this.statsChain = undefined;
    if (statsChain !== undefined) void statsQueue.push(statsChain, 0);
    return answer;
  }

  private *takeStats(queue: Virtqueue): Steps<void> {
    for (;;) {
      const chain = yield* wait(queue.pop());
      if (chain === undefined) return;
      // There is one at a time; a driver that hands out another gets the first one back.
      if (this.statsChain !== undefined) yield* wait(queue.push(this.statsChain, 0));
      this.statsChain = chain;
      yield* this.readStats(queue, chain);
    }
  }

  private *readStats(queue: Virtqueue, chain: DescriptorChain): Steps<void> {
    const bytes = new Uint8Array(Math.min(chain.readableBytes, MAX_STATS_BYTES));
    try {
      yield* wait(chain.read(0, bytes));
    } catch (error) {
      queue.fail(error instanceof Error ? error.message : String(error));
      return;
    }
    if (queue === this.statsQueue) this.answerStats(decodeStats(bytes));
  }

  private answerStats(stats: BalloonStats | undefined): void {
    for (const resolve of this.statsWaiters.splice(0)) resolve(stats);
  }
}

/** Only behind inflate and deflate, if anywhere. */
const STATS_INDEX = 2;

function queueKinds(features: bigint): QueueKind[] {
  const has = (bit: bigint) => ((features >> bit) & 1n) === 1n;
  const kinds: QueueKind[] = ['inflate', 'deflate'];
  if (has(VIRTIO_BALLOON_F_STATS_VQ)) kinds.push('stats');
  if (has(VIRTIO_BALLOON_F_REPORTING)) kinds.push('reporting');
  return kinds;
}

/** The pages by runs: what lies side by side is given back at once. */
function runsOf(pfns: DataView): GuestRun[] {
  const sorted = new Uint32Array(pfns.byteLength / PFN_BYTES).map((_, i) => pfns.getUint32(i * PFN_BYTES, true)).sort();
  const runs: { gpa: number; lenBytes: number }[] = [];
  for (const pfn of sorted) {
    const gpa = pfn * BALLOON_PAGE_BYTES;
    const last = runs.at(-1);
    if (last !== undefined && gpa <= last.gpa + last.lenBytes) last.lenBytes = gpa + BALLOON_PAGE_BYTES - last.gpa;
    else runs.push({ gpa, lenBytes: BALLOON_PAGE_BYTES });
  }
  return runs;
}

/** Entries of a tag of 16 bits and a value of 64; a value of all ones is one that the driver does not know. */
function decodeStats(bytes: Uint8Array): BalloonStats {
  const view = new DataView(bytes.buffer);
  const stats: BalloonStats = {};
  for (let at = 0; at + STAT_BYTES <= bytes.length; at += STAT_BYTES) {
    const name = STAT_NAMES[view.getUint16(at, true)];
    const value = view.getBigUint64(at + 2, true);
    if (name !== undefined && value !== 2n ** 64n - 1n) stats[name] = Number(value);
  }
  return stats;
}
