import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { Kvm } from '../../src/kvm/index.js';
import { Host, MADV_PAGEOUT, MemorySwap, type SwapDevice } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { BoardGuest } from '../../src/vmm/index.js';
import { bundleWorker } from '../worker.js';
import { folder, present } from './debianguest.js';

/**
 * Linux's watchdogs, set tight, in a guest whose whole memory is on a swap device that takes half a second for each read: by the
 * guest's clock no time goes by while it waits, so that none of them fires. With a clock that goes on they do.
 */

const MIB = 2 ** 20;
const RAM_BYTES = 128 * MIB;
const NR_SLOW_READS = 60;
const SLOW_MS = 500;

/** Seconds that a CPU may spend without scheduling (twice this), and without a quiescent state of RCU. */
const SOFT_LOCKUP_SECONDS = 3;
const RCU_STALL_SECONDS = 5;
const TIGHTEN =
  `echo ${SOFT_LOCKUP_SECONDS} >/proc/sys/kernel/watchdog_thresh; ` +
  `echo ${RCU_STALL_SECONDS} >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout`;
const ALARM = /soft lockup|detected.* stall|stalls on CPU|blocked for more than|workqueue lockup/;
const UPTIME = 'echo up $(cut -d. -f1 /proc/uptime) seconds';
const WORK = `ls -lR /sys/kernel | md5sum; dmesg | tail -n 20; ${UPTIME}`;

/** Memory, which is slow for the next reads where it is told so. */
class SlowSwap implements SwapDevice {
  readonly name = 'slow';
  readonly nrSlots = (2 * RAM_BYTES) / 4096;
  nrSlow = 0;
  private readonly inner = new MemorySwap({ sizeBytes: 2 * RAM_BYTES });

  async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    if (this.nrSlow-- > 0) await wait(SLOW_MS);
    this.inner.readSync(slots, frames);
  }

  async write(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    this.inner.writeSync(slots, frames);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

class Debian {
  console = '';
  private readonly swap = new SlowSwap();
  private readonly host = new Host({
    ...{ frames: (RAM_BYTES + 16 * MIB) / 4096, arenaBytes: 160 * MIB, swap: this.swap },
    ...{ now: () => performance.now(), defer: (fn: () => void) => setImmediate(fn) },
  });

  async run(nrVcpus: number, text: string): Promise<number> {
    const vcpuWorker = bundleWorker(new URL('../../src/node/vcpuworker.ts', import.meta.url));
    const guest = await BoardGuest.create({
      name: 'debian',
      kvm: new Kvm(this.host, nodeEnvironment({ vcpuWorker })),
      host: this.host,
      ramBytes: RAM_BYTES,
      ...{ nrVcpus, threads: nrVcpus > 1, pin: false },
      kernel: readFileSync(join(folder, 'Image')),
      initrd: readFileSync(join(folder, 'initrd.gz')),
      bootargs: `console=ttyS0 quiet unpin.run="set -e; ${TIGHTEN}; ${UPTIME}; echo tight; read line; ${text}"`,
      rngSeed: new Uint8Array(32).fill(7),
      gunzip: (bytes) => gunzipSync(bytes),
      console: (bytes) => (this.console += Buffer.from(bytes).toString()),
    });
    const done = guest.run();
    await this.until(/tight/);
    await this.pageOut(guest);
    this.swap.nrSlow = NR_SLOW_READS;
    const startMs = performance.now();
    guest.input(Buffer.from('\n'));
    const { exit, reason } = await done;
    expect([exit, reason], this.console).toEqual(['poweroff', '']);
    await this.host.stop();
    return (performance.now() - startMs) / 1000;
  }

  private async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.console)) await wait(50);
  }

  /** All that the guest has: what is dirty goes when it was written. */
  private async pageOut({ mm }: BoardGuest): Promise<void> {
    const before = mm.residentPages;
    const [{ start, end }] = mm.smaps() as unknown as [{ start: number; end: number }];
    for (let round = 0; round < 20 && mm.residentPages > before / 20; round++) {
      mm.madvise(start, end - start, MADV_PAGEOUT);
      await wait(50);
    }
    expect(mm.residentPages).toBeLessThan(before / 20);
  }
}

describe.skipIf(!present)("Debian's watchdogs", () => {
  test.each([1, 2])('are silent while the guest, of %i vCPUs, waits for its memory', async (nrVcpus) => {
    const debian = new Debian();
    const seconds = await debian.run(nrVcpus, WORK);
    expect(debian.console).toMatch(/[0-9a-f]{32} {2}-\r?\n[\s\S]*unpin: exit status 0/);
    expect(debian.console).not.toMatch(ALARM);
    console.log(`${nrVcpus} vCPUs: ${seconds.toFixed(0)} s; ${debian.console.match(/up \d+ seconds/g)?.join(', ')}`);
  });
});
