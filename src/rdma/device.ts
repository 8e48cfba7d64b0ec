import { KernelError, type Words } from '../base/index.js';
import type { Host, Mm } from '../mm/index.js';
import { ContextImpl } from './context.js';
import type { NicThreadInit, RdmaEnvironment } from './environment.js';
import { FaultService, maxWindowOf } from './faultservice.js';
import type { Mr } from './mr.js';
import { BYTES_RECEIVED, BYTES_SENT, NR_COUNTERS, TERMINATES_RECEIVED, TERMINATES_SENT } from './nic/connection.js';
import type { FromNic, ToNic } from './nic/messages.js';
import { NIC_STATE_WORDS, NicState } from './nic/nicstate.js';
import { memoryWords, REGION_WORDS } from './nic/region.js';
import { RegionTable } from './nic/regiontable.js';
import { NicLink } from './niclink.js';
import type { Device, DeviceStats } from './verbs.js';
import { CRC32C_SCRATCH_BYTES } from './wire/index.js';

/**
 * A NIC as the mm thread sees it: its shared words, the keys, and the link to where it runs (niclink.ts): a thread of its own, or this one.
 *
 * The NIC's thread may die or be killed at any instant. It owns nothing that the host needs: its device is dead then, all its work is flushed as far as anybody can tell, keys are void, and
 * frames that it was given come back by `RemoteArea.recover` (N25).
 */

export interface DeviceOptions {
  readonly name?: string;
  /** Whether the NIC has a thread of its own; default: where the environment has threads. */
  readonly thread?: boolean;
  /** Regions at most, a power of two; default 1024. */
  readonly maxMr?: number;
  /** Bytes that a connection reads at once; it sends up to four times as many; default 128 KiB; at least 32 KiB. */
  readonly bufferBytes?: number;
}

const DEFAULT_MAX_MR = 1024;
const DEFAULT_BUFFER_BYTES = 131072;
const MIN_BUFFER_BYTES = 32768;

/** Opens a NIC in `host`. Throws KernelError EINVAL, ENOMEM (arena), EOPNOTSUPP (neither threads nor connections in `env`). */
export function openDevice(host: Host, env: RdmaEnvironment, options: DeviceOptions = {}): DeviceImpl {
  return new DeviceImpl(host, env, options);
}

export class DeviceImpl implements Device {
  readonly name: string;
  readonly host: Host;
  readonly env: RdmaEnvironment;
  readonly words: Words;
  readonly regions: RegionTable;
  readonly bufferBytes: number;
  readonly state: NicState;
  readonly link: NicLink;
  readonly faults: FaultService;
  /** What a NIC's thread begins with. */
  readonly init: NicThreadInit;
  /** What regions that are gone have counted. */
  readonly past = { minorFaults: 0, retries: 0 };
  readonly counts = { minorFaults: 0, majorFaults: 0, retries: 0, pageInvalidations: 0, pagePrefetches: 0 };
  readonly contexts = new Map<number, ContextImpl>();
  /** Why it is of no use any more. */
  dead: string | undefined;
  private readonly blocks: { addr: number; lenBytes: number }[] = [];
  private readonly counters: Float64Array;
  private readonly slots: (Mr | undefined)[];
  private readonly lastKeys: number[] = [];
  private readonly random = new Uint8Array(4);
  private nrQpNums = 0;
  private nrContexts = 0;
  private nrConns = 0;
  private closing: Promise<void> | undefined;
  /** When it is closed, and its words are gone. */
  private lastStats: DeviceStats | undefined;

  constructor(host: Host, env: RdmaEnvironment, options: DeviceOptions) {
    const { maxMr = DEFAULT_MAX_MR, bufferBytes = DEFAULT_BUFFER_BYTES } = options;
    const refuse = (what: string): never => {
      throw new KernelError('EINVAL', 'openDevice', what);
    };
    if (!Number.isInteger(maxMr) || maxMr < 1 || maxMr > 65536 || (maxMr & (maxMr - 1)) !== 0)
      refuse(`maxMr ${maxMr} must be a power of two from 1 to 65536`);
    if (!Number.isInteger(bufferBytes) || bufferBytes < MIN_BUFFER_BYTES || bufferBytes % 8 !== 0)
      refuse(`bufferBytes ${bufferBytes} must be a multiple of 8 from ${MIN_BUFFER_BYTES} up`);
    this.name = options.name ?? 'unpin0';
    this.host = host;
    this.env = env;
    this.bufferBytes = bufferBytes;
    this.words = memoryWords(host.memory);
    this.slots = new Array(maxMr).fill(undefined);
    const threaded = options.thread ?? env.startNicThread !== undefined;
    if (threaded ? env.startNicThread === undefined : env.net === undefined)
      throw new KernelError(
        'EOPNOTSUPP',
        'openDevice',
        `the environment has no ${threaded ? 'threads' : 'connections'}`,
      );
    const [stateAddr, countersAddr] = [this.block(NIC_STATE_WORDS * 4), this.block(NR_COUNTERS * 8)];
    const regionsAddr = this.block(maxMr * REGION_WORDS * 4);
    const crcAddr = this.block(CRC32C_SCRATCH_BYTES);
    const maxWindow = maxWindowOf(host.frames.nrFrames);
    this.state = new NicState(host.memory, stateAddr);
    this.counters = new Float64Array(host.memory.buffer, countersAddr, NR_COUNTERS);
    this.regions = new RegionTable(this.words, regionsAddr, maxMr);
    this.init = { memory: host.memory, stateAddr, regionsAddr, nrRegions: maxMr, countersAddr, crcAddr, maxWindow };
    this.faults = new FaultService(this);
    this.link = new NicLink(this, this.init, threaded);
  }

  private block(lenBytes: number): number {
    const addr = this.allocZeroed(lenBytes, 16);
    this.blocks.push({ addr, lenBytes });
    return addr;
  }

  /** Throws KernelError ENOMEM. */
  allocZeroed(lenBytes: number, align = 8): number {
    const addr = this.host.arenaAlloc(lenBytes, align);
    this.host.pageOps.clear(addr, lenBytes);
    return addr;
  }

  get threaded(): boolean {
    return this.link.threaded;
  }

  openContext(mm: Mm): ContextImpl {
    this.refuseDead('openContext');
    if (mm.exited) throw new KernelError('EFAULT', 'openContext', `${mm.name} has exited`);
    if (mm.host !== this.host)
      throw new KernelError('EINVAL', 'openContext', `${mm.name} must be of the device's host`);
    const context = new ContextImpl(this, mm, ++this.nrContexts);
    this.contexts.set(context.id, context);
    return context;
  }

  refuseDead(syscall: string): void {
    if (this.dead !== undefined) throw new KernelError('ENODEV', syscall, `${this.name}: ${this.dead}`);
  }

  send(message: ToNic): void {
    this.link.send(message);
  }

  newQpNum(): number {
    this.nrQpNums = (this.nrQpNums + 1) & 0xffffff || 1;
    return this.nrQpNums;
  }

  newConn(): number {
    return ++this.nrConns;
  }

  countInvalidations(nr: number): void {
    this.counts.pageInvalidations += nr;
  }

  defer(fn: () => void): void {
    this.env.defer(fn);
  }

  /** Others have their turn. */
  turn(): Promise<void> {
    return new Promise((resolve) => this.env.defer(resolve));
  }

  // Keys.

  /** A free place, and a random key that leads there. Throws KernelError ENOMEM. */
  takeSlot(mr: Mr): { slot: number; key: number } {
    const { slots } = this;
    const mask = slots.length - 1;
    for (let tries = 0; tries < 64 + slots.length; tries++) {
      const random = this.randomKey();
      // Random places first; when few are free, all of them in turn.
      const slot = tries < 64 ? random & mask : (random + tries) & mask;
      const key = ((random & ~mask) | slot) >>> 0;
      if (slots[slot] !== undefined || key === 0 || key === this.lastKeys[slot]) continue;
      slots[slot] = mr;
      this.lastKeys[slot] = key;
      return { slot, key };
    }
    const free = slots.indexOf(undefined);
    if (free < 0)
      throw new KernelError('ENOMEM', 'regMr', `${slots.length} regions are all that ${this.name} has (maxMr)`);
    slots[free] = mr;
    const key = (this.randomKey() & ~mask) | free | (mask + 1);
    this.lastKeys[free] = key >>> 0;
    return { slot: free, key: key >>> 0 };
  }

  private randomKey(): number {
    this.env.randomFill(this.random);
    const [a, b, c, d] = this.random;
    return a! | (b! << 8) | (c! << 16) | (d! << 24);
  }

  giveSlot(slot: number): void {
    this.slots[slot] = undefined;
  }

  /** The region that `key` names. */
  mrOf(key: number): Mr | undefined {
    const mr = this.slots[key & (this.slots.length - 1)];
    return mr?.isLive && mr.lkey === key >>> 0 ? mr : undefined;
  }

  mrs(): Mr[] {
    return this.slots.filter((mr) => mr !== undefined);
  }

  // What the NIC tells.

  receive(message: FromNic): void {
    if (message.type === 'fault') this.faults.fault(message);
    else if (message.type === 'faultUsed') this.faults.used(message.id);
    else if (message.type === 'readAhead') this.faults.readAhead(message);
    else if (![...this.contexts.values()].some((context) => context.receive(message))) this.unclaimed(message);
  }

  /** A request for a listener that is gone. */
  private unclaimed(message: FromNic): void {
    if (message.type === 'connectRequest') this.send({ type: 'closeConn', conn: message.conn });
  }

  /** Its thread has ended without having been told to. */
  died(reason: string): void {
    if (this.dead !== undefined) return;
    this.dead = reason;
    this.state.over();
    this.faults.end();
    for (const region of this.mrs().flatMap((mr) => mr.liveRegions())) region.breakLock();
    for (const context of this.contexts.values()) context.deviceDied(reason);
  }

  stats(): DeviceStats {
    if (this.lastStats !== undefined) return this.lastStats;
    const { counts, past } = this;
    const [stats, mrs] = [{ ...counts }, this.mrs()];
    stats.minorFaults += past.minorFaults;
    stats.retries += past.retries;
    for (const region of mrs.flatMap((mr) => mr.liveRegions())) {
      stats.minorFaults += region.nrFaults();
      stats.retries += region.nrRetries();
    }
    let nrQps = 0;
    for (const context of this.contexts.values()) nrQps += context.nrQps;
    return {
      ...stats,
      copyWaits: this.state.nrWaits(),
      pinnedPages: mrs.reduce((nr, mr) => nr + (mr.pinned?.pfns.length ?? 0), 0),
      heldPages: this.faults.nrHeld,
      bytesReceived: this.counters[BYTES_RECEIVED]!,
      bytesSent: this.counters[BYTES_SENT]!,
      terminatesSent: this.counters[TERMINATES_SENT]!,
      terminatesReceived: this.counters[TERMINATES_RECEIVED]!,
      nrQps,
      nrMrs: mrs.length,
    };
  }

  close(): Promise<void> {
    return (this.closing ??= this.closeAll());
  }

  private async closeAll(): Promise<void> {
    for (const context of [...this.contexts.values()]) await context.close();
    await this.link.stop();
    this.faults.end();
    this.dead ??= 'it is closed';
    this.lastStats = this.stats();
    for (const { addr, lenBytes } of this.blocks.splice(0)) this.host.arenaFree(addr, lenBytes);
  }
}
