import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MemoryCgroup } from '../lib/cgroup.js';
import { Peer } from '../lib/peer.js';
import { LinuxSwap } from '../lib/swapfile.js';
import type { Trace } from './trace.js';

/**
 * A trace replayed on the real Linux, in a memory cgroup of so many pages, with swap and without read-ahead: its major faults are its
 * misses. What the page tables take is added to the limit; a few dozen pages that Linux charges in advance make the size of memory a
 * little less sure than ours. Needs root; `open` throws where it cannot be done.
 */
const PAGE_CLUSTER = '/proc/sys/vm/page-cluster';
const SLACK_PAGES = 32;
/** In so small a cgroup Linux kills now and then what it does not the next time. */
const ATTEMPTS = 4;

export class LinuxReplay {
  private readonly swap: LinuxSwap;
  private readonly pageCluster: string;
  private readonly restore = () => writeFileSync(PAGE_CLUSTER, this.pageCluster);

  private constructor(swap: LinuxSwap) {
    this.swap = swap;
    this.pageCluster = readFileSync(PAGE_CLUSTER, 'utf8');
    writeFileSync(PAGE_CLUSTER, '0');
    process.once('exit', this.restore);
  }

  static open(): LinuxReplay {
    return new LinuxReplay(LinuxSwap.on(256 * 2 ** 20));
  }

  /** NaN where Linux cannot live in so little: it kills the program. */
  async misses(trace: Trace, nrFrames: number): Promise<number> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const misses = await this.replay(trace, nrFrames);
      if (!Number.isNaN(misses)) return misses;
    }
    return Number.NaN;
  }

  private async replay(trace: Trace, nrFrames: number): Promise<number> {
    const path = join(this.swap.folder, 'refs');
    writeFileSync(path, new Uint8Array(trace.refs.buffer));
    const cgroup = MemoryCgroup.create();
    const peer = Peer.start('replay.c');
    await peer.ask(`load ${path} ${trace.nrPages}`);
    cgroup.add(peer.pid);
    cgroup.limit((nrFrames + Math.ceil(trace.nrPages / 512) + SLACK_PAGES) * 4096);
    const misses = await peer.ask('run').then(Number, () => Number.NaN);
    await peer.stop();
    cgroup.remove();
    return misses;
  }

  close(): void {
    process.off('exit', this.restore);
    this.restore();
    this.swap.off();
  }
}
