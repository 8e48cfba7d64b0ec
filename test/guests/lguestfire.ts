import { readFileSync } from 'node:fs';
import { checkLguest, LguestDevice } from '../../src/lguest/index.js';
import { MemoryDisk, VirtioBlk } from '../../src/machine/index.js';
import { checkHost, Host, MADV_COLD, MADV_PAGEOUT, MemorySwap } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { LguestGuest } from '../../src/vmm/index.js';
import { Random } from '../isa/random.js';

/**
 * lguest's guests under fire: in frames for a quarter of what they use, which are poisoned when they are freed. Meanwhile their mms are forked and
 * the children write and exit, pages migrate, parts of their memory are paged out or said to be cold, they are stopped and looked at as a whole, and one that is
 * launched beside them is killed at a random instant.
 *
 * Use: `await lguestUnderFire(seed)`: what each guest said last, and what it met.
 */

const MIB = 2 ** 20;
const RAM_BYTES = 8 * MIB;
const FRAMES = (3 * MIB) / 4096;
const NR_GUESTS = 2;
const EVERY_MS = 10;
const VERDICT = /\d+ MiB in \d+ pages: verified \d+ words and \d+ blocks, 0 errors, checksum 0x\w+/;

export type Met = Record<string, number>;

interface Running {
  readonly guest: LguestGuest;
  readonly console: () => string;
}

class Fire {
  readonly met: Met = { forks: 0, migrated: 0, pagedOut: 0, checks: 0, killed: 0 };
  readonly host = new Host({
    frames: FRAMES,
    arenaBytes: 64 * MIB,
    swap: new MemorySwap({ sizeBytes: 128 * MIB }),
    defer: (fn) => setImmediate(fn),
    debug: true,
  });
  private readonly device = new LguestDevice(this.host, nodeEnvironment());
  private readonly random: Random;
  failure: unknown;
  private busy = false;

  constructor(random: Random) {
    this.random = random;
  }

  async launch(bootargs: string): Promise<Running> {
    let console = '';
    const guest = await LguestGuest.create({
      name: 'guest',
      lguest: this.device,
      ramBytes: RAM_BYTES,
      kernel: new Uint8Array(readFileSync(new URL('../../guests/images/forkhog.img', import.meta.url))),
      bootargs,
      gunzip: (bytes) => bytes,
      console: (bytes) => (console += Buffer.from(bytes).toString('latin1')),
      devices: [new VirtioBlk({ backend: new MemoryDisk(MIB) })],
    });
    return { guest, console: () => console };
  }

  /** One thing to one guest. Waits where it must, and then no other begins. */
  async step(running: readonly Running[]): Promise<void> {
    const { guest } = this.random.pick(running);
    if (this.busy || guest.state !== 'running') return;
    this.busy = true;
    try {
      await this.act(guest);
    } catch (error) {
      this.failure ??= error;
    }
    guest.resume();
    this.busy = false;
  }

  private async act(guest: LguestGuest): Promise<void> {
    const what = this.random.below(10);
    if (what < 3) await this.fork(guest);
    else if (what < 5) this.met.migrated! += this.host.compact().nrMigrated;
    else if (what < 7) this.pageOut(guest);
    else if (what < 9) await this.check(guest);
    else await this.killAnother();
  }

  /** The child sees what there was, however the guest goes on. */
  private async fork(guest: LguestGuest): Promise<void> {
    const child = guest.mm.fork();
    const va = guest.mm.smaps()[0]!.start + this.random.below(RAM_BYTES / 4096) * 4096;
    const [before, after] = [new Uint8Array(4096), new Uint8Array(4096)];
    await child.read(va, before);
    await new Promise((resolve) => setTimeout(resolve, this.random.below(EVERY_MS)));
    await child.read(va, after);
    if (Buffer.compare(before, after) !== 0) throw new Error(`the guest wrote into its child's page at ${va}`);
    await child.write(va, after.fill(0xa5));
    child.exit();
    this.met.forks!++;
  }

  private pageOut(guest: LguestGuest): void {
    const nr = 1 + this.random.below(256);
    const va = guest.mm.smaps()[0]!.start + this.random.below(RAM_BYTES / 4096 - nr) * 4096;
    guest.mm.madvise(va, nr * 4096, this.random.oneIn(2) ? MADV_PAGEOUT : MADV_COLD);
    this.met.pagedOut!++;
  }

  private async check(guest: LguestGuest): Promise<void> {
    await guest.pause();
    if (guest.state === 'paused') {
      checkLguest(guest.lg);
      this.met.checks!++;
    }
  }

  private async killAnother(): Promise<void> {
    const { guest } = await this.launch('passes=1000 mib=1');
    const done = guest.run();
    await new Promise((resolve) => setTimeout(resolve, this.random.below(10 * EVERY_MS)));
    guest.kill('killed', 'by the test');
    const { exit } = await done;
    if (exit !== 'killed') throw new Error(`a guest that was killed ended with ${exit}`);
    this.met.killed!++;
  }
}

export async function lguestUnderFire(seed: number): Promise<{ verdicts: (string | undefined)[]; met: Met }> {
  const fire = new Fire(new Random(seed));
  const running: Running[] = [];
  for (let i = 0; i < NR_GUESTS; i++) running.push(await fire.launch(`passes=3 mib=2 seed=${seed}`));
  let steps: Promise<unknown> = Promise.resolve();
  const timer = setInterval(() => {
    steps = Promise.all([steps, fire.step(running)]);
  }, EVERY_MS);
  const reports = await Promise.all(running.map(({ guest }) => guest.run()));
  clearInterval(timer);
  await steps;
  if (fire.failure !== undefined) throw fire.failure;
  checkHost(fire.host);
  const { frames, framesFree, pinnedFrames, poisoned, swapInPages, swapOutPages } = fire.host.stats();
  await fire.host.stop();
  const zapped = reports.reduce((sum, { lguest }) => sum + lguest!.zapped, 0);
  const met = { ...fire.met, zapped, swapInPages, swapOutPages, pinnedFrames, poisoned, lost: frames - framesFree };
  return { verdicts: running.map(({ console }) => VERDICT.exec(console())?.[0] ?? console()), met };
}
