import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { BigPico } from '../../examples/rp2040/bigpico.js';
import { expectedOutput, runSort } from '../../examples/rp2040/run.js';
import { GuestRam } from '../../src/guestram/index.js';
import { Kvm, type Vcpu } from '../../src/kvm/index.js';
import {
  FAULT_FLAG_WRITE,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MMU_NOTIFY_CLEAR,
  type Mm,
  PAGE_SIZE,
} from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { BoardGuest } from '../../src/vmm/index.js';
import { option } from '../lib/common.js';
import { type Trace, TraceBuilder } from './trace.js';

/**
 * Records which pages a guest uses, by what this project is about: at the end of each epoch a bracket over all of its memory takes every
 * entry of the external MMU away (more may be invalidated than was asked for, N11), so that the first use of each page in the next
 * epoch is a fault, and the fault is written down.
 *
 * Bias: an epoch knows of each page that it was used, when first, and whether it was written, but not how often. Host code that reads or
 * writes guest memory by address (the loading of the kernel) is not recorded.
 */
class Recorder {
  readonly builder = new TraceBuilder();
  private readonly mm: Mm;
  private readonly startVpn: number;
  private readonly nrPages: number;

  constructor(mm: Mm, va: number, nrPages: number) {
    this.mm = mm;
    this.startVpn = va / PAGE_SIZE;
    this.nrPages = nrPages;
    const tryGetPage = mm.tryGetPage.bind(mm);
    mm.tryGetPage = (at, flags) => {
      const pfn = tryGetPage(at, flags);
      if (pfn > 0) this.builder.touch(Math.floor(at / PAGE_SIZE) - this.startVpn, (flags & FAULT_FLAG_WRITE) !== 0);
      return pfn;
    };
  }

  endEpoch(): void {
    const { range, notifiers } = this.mm;
    this.builder.endEpoch();
    range.reset(MMU_NOTIFY_CLEAR, true);
    range.add(this.startVpn, this.startVpn + this.nrPages);
    notifiers.invalidateRangeStart(range.seal());
    notifiers.invalidateRangeEnd(range);
  }
}

interface Boot {
  readonly name: string;
  readonly kernel: string;
  readonly initrd?: string;
  readonly bootargs: string;
  readonly ramMib: number;
  /** Instructions of an epoch. */
  readonly epoch: number;
}

async function recordBoot(boot: Boot): Promise<Trace> {
  const ramBytes = boot.ramMib * 2 ** 20;
  const nrPages = ramBytes / PAGE_SIZE;
  const host = new Host({ frames: nrPages + 1024, arenaBytes: 96 * 2 ** 20, defer: (fn) => setImmediate(fn) });
  const guest = await BoardGuest.create({
    name: 'guest',
    kvm: new Kvm(host, nodeEnvironment()),
    host,
    ramBytes,
    kernel: readFileSync(boot.kernel),
    ...(boot.initrd === undefined ? {} : { initrd: readFileSync(boot.initrd) }),
    bootargs: boot.bootargs,
    rngSeed: new Uint8Array(32).fill(7),
    pin: false,
    gunzip: (bytes) => gunzipSync(bytes),
    console: (bytes) => process.stderr.write(bytes),
  });
  const recorder = new Recorder(guest.mm, guest.mm.vmas.all()[0]!.start, nrPages);
  cutIntoEpochs((guest as unknown as { vcpu: Vcpu }).vcpu, boot.epoch, () => recorder.endEpoch());
  const report = await guest.run();
  if (report.exit !== 'poweroff') throw new Error(`record ${boot.name}: ${report.exit}: ${report.reason}`);
  await host.stop();
  return recorder.builder.build(boot.name);
}

/** Lets the hart run `epoch` instructions at a time, and `endEpoch` in between, outside of guest mode. */
function cutIntoEpochs({ hart }: Vcpu, epoch: number, endEpoch: () => void): void {
  const run = hart.run.bind(hart);
  let left = epoch;
  hart.run = (nrInstructions) => {
    const before = hart.instret;
    const exit = run(Math.min(nrInstructions, left));
    left -= hart.instret - before;
    if (left <= 0) {
      left = epoch;
      endEpoch();
    }
    return exit;
  };
}

/** An emulator of another machine on GuestRam: sorts an array. */
function recordSort(epoch: number): Trace {
  const lenBytes = 2 * 2 ** 20;
  const nrPages = lenBytes / PAGE_SIZE;
  const nrWords = 448 * 1024;
  const host = new Host({ frames: nrPages + 256 });
  const mm = host.createMm();
  const va = mm.mmap(0, lenBytes, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  const recorder = new Recorder(mm, va, nrPages);
  const pico = new BigPico(GuestRam.over(mm, va, lenBytes));
  const execute = pico.core.executeInstruction.bind(pico.core);
  let left = epoch;
  pico.core.executeInstruction = () => {
    if (--left === 0) {
      left = epoch;
      recorder.endEpoch();
    }
    return execute();
  };
  const { printed } = runSort(pico, lenBytes, nrWords);
  if (printed !== expectedOutput(nrWords)) throw new Error(`record sort: wrong result: ${printed}`);
  return recorder.builder.build('sort: rp2040js sorts 1.75 MiB in a GuestRam');
}

const WORK =
  'for i in 1 2 3; do ls -lR /sys /proc/sys >/tmp/a 2>/dev/null; gzip </tmp/a >/tmp/b$i; sort /tmp/a | uniq -c | sort -n | tail -1; done';

/** Records what is called `name`. `--epoch N`: instructions of an epoch. */
export async function record(name: string): Promise<Trace> {
  const epoch = Number(option('epoch', '100000'));
  const guest = option('guest', 'debian-guest');
  switch (name) {
    case 'memhog':
      return recordBoot({
        name: 'memhog: our guest, 16 MiB, two passes',
        kernel: 'guests/images/memhog.img',
        bootargs: 'passes=2 seed=1',
        ramMib: 16,
        epoch,
      });
    case 'debian':
      return recordBoot({
        name: 'debian: boot of Debian Linux, then ls, gzip and sort in a shell',
        kernel: `${guest}/Image`,
        initrd: `${guest}/initrd.gz`,
        bootargs: `console=ttyS0 quiet unpin.run="${WORK}"`,
        ramMib: 160,
        epoch,
      });
    case 'sort':
      return recordSort(epoch);
    default:
      throw new Error(`record: '${name}' must be one of memhog, debian, sort`);
  }
}
