import {
  describePte,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../mm/index.js';
import { type ExternalEntry, StepDevice } from './stepdevice.js';

/**
 * One reclaim against a running external MMU, by the real mm: what happens is noted step by step, with the state after each. The mm's own steps are seen by
 * standing before its page table, frame table and swap device.
 */
export interface Step {
  readonly who: string;
  readonly what: string;
  readonly pte: string;
  readonly external: string;
  readonly tlb: string;
  readonly seq: string;
  readonly inProgress: string;
  readonly frame: string;
}

export interface StepRun {
  readonly steps: readonly Step[];
  /** What the device stored, and what it found when the page had been away. */
  readonly stored: number;
  readonly found: number;
}

const STORED = 42;

export async function runSteps(): Promise<StepRun> {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const host = new Host({ frames: 64, arenaBytes: 4096, swap, debug: true });
  const mm = host.createMm({ name: 'step' });
  const va = mm.mmap(0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  const recorder = new Recorder(mm, va);
  const { device } = recorder;
  device.access(true, STORED);
  device.access(false);
  recorder.watch();
  recorder.tell('reclaim', 'a pass begins: was the page used?');
  host.reclaim.shrink(true, true, false);
  recorder.tell('reclaim', 'it was: it stays, on the active list');
  recorder.tell('reclaim', 'memory is short, a later pass takes pages in use too');
  host.reclaim.shrink(true, true, true);
  recorder.unwatch();
  const other = host.createMm({ name: 'other' });
  other.writeSync(other.mmap(0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS), new Uint8Array([99]));
  recorder.tell('other', 'another address space takes the frame, and writes 99 there');
  device.access(false);
  await mm.faultIn(va, 0);
  recorder.tell('mm', 'faultIn: the page is read from swap, into a free frame');
  device.access(false);
  const found = host.u8[device.tlb!.pfn * PAGE_SIZE]!;
  device.taker = 'exit';
  mm.exit();
  recorder.tell('exit', 'the address space is gone');
  await host.stop();
  return { steps: recorder.steps, stored: STORED, found };
}

class Recorder {
  readonly steps: Step[] = [];
  readonly device: StepDevice;
  private readonly mm: Mm;
  private readonly va: number;
  /** The frame that the page is in, or was in last. */
  private pfn = 0;
  private readonly undo: (() => void)[] = [];

  constructor(mm: Mm, va: number) {
    this.mm = mm;
    this.va = va;
    this.device = new StepDevice(mm, va, (who, what) => this.tell(who, what));
  }

  tell(who: string, what: string): void {
    const { device } = this;
    const vpn = this.va / PAGE_SIZE;
    this.mm.forEachPresent(vpn, vpn + 1, (_vpn, pfn) => void (this.pfn = pfn));
    this.steps.push({
      ...{ who, what, pte: describePte(this.mm.pageTable.get(vpn)) },
      ...{ external: describeEntry(device.entry), tlb: describeEntry(device.tlb) },
      ...{ seq: `${device.count}`, inProgress: `${device.seq.inProgress}`, frame: this.describeFrame() },
    });
  }

  private describeFrame(): string {
    const { frames } = this.mm.host;
    if (this.pfn === 0) return '-';
    if (frames.isFree(this.pfn)) return `${this.pfn}: free`;
    return `${this.pfn}: refs ${frames.refcount[this.pfn]}, maps ${frames.mapcount[this.pfn]}`;
  }

  /** From now on the mm's steps are told too, and the device tries its luck inside the bracket, before the pte goes and after. */
  watch(): void {
    const { pageTable, host } = this.mm;
    const getAndSet = pageTable.getAndSet.bind(pageTable);
    pageTable.getAndSet = (i, pte) => {
      this.tell('device', '(runs on, in the middle of the bracket)');
      this.device.access(false);
      const old = getAndSet(i, pte);
      this.tell('reclaim', `the pte is replaced: ${describePte(pte)}`);
      return old;
    };
    const free = host.frames.free.bind(host.frames);
    host.frames.free = (pfn) => {
      free(pfn);
      this.tell('reclaim', 'nobody refers to the frame: it is free');
    };
    const { submit } = host.writeback;
    host.writeback.submit = (pfns, sync) => {
      if (pfns.length > 0) this.tell('reclaim', 'the page, which nobody can write now, goes to swap');
      submit.call(host.writeback, pfns, sync);
    };
    for (const object of [pageTable, host.frames, host.writeback] as object[])
      for (const name of ['getAndSet', 'free', 'submit']) this.undo.push(() => Reflect.deleteProperty(object, name));
  }

  unwatch(): void {
    for (const restore of this.undo.splice(0)) restore();
  }
}

function describeEntry(entry: ExternalEntry | undefined): string {
  return entry === undefined ? '-' : `frame ${entry.pfn} ${entry.write ? 'RW' : 'R'}`;
}
