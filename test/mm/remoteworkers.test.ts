import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { KernelError, Words } from '../../src/base/index.js';
import {
  checkHost,
  createRemote,
  Host,
  MADV_DONTNEED,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { bundleWorker } from '../worker.js';
import { RemoteDriver, serve } from './remotedriver.js';
import type { RemoteWorkerData } from './remoteworker.js';

/** Real threads that map pages by themselves, beside an mm thread that takes pages and rights away, and are terminated at some instant. */

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const NR_PAGES = 700;
const url = bundleWorker(new URL('./remoteworker.ts', import.meta.url));

let seed = 20_261_125;
function random(n: number): number {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return (seed >>> 8) % n;
}

/** One thread and the pages that it uses. */
class User {
  readonly mm: Mm;
  readonly driver: RemoteDriver;
  readonly area: ReturnType<typeof createRemote>;
  readonly mail: Words;
  readonly wrong: string[] = [];
  private readonly mailAddr: number;
  private worker: Worker | undefined;
  private serving: Promise<void> = Promise.resolve();

  constructor(mm: Mm, va: number) {
    const { host } = mm;
    this.mm = mm;
    mm.mmap(va, NR_PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
    this.driver = new RemoteDriver(mm, va, NR_PAGES);
    this.area = createRemote(mm);
    this.mailAddr = host.arenaAlloc(8, 8);
    this.mail = new Words(host.memory, this.mailAddr, 2);
  }

  async start(): Promise<void> {
    this.area.refill();
    this.mail.store(1, 0);
    const { memory } = this.mm.host;
    const user = this.driver.describe(this.area.descriptor);
    const workerData: RemoteWorkerData = { memory, user, mailAddr: this.mailAddr, seed: random(2 ** 24) };
    this.worker = new Worker(url, { workerData });
    this.worker.on('message', (message) => {
      if (message.ready !== true) this.serving = this.answer(message);
    });
    this.worker.on('error', (error) => this.wrong.push(String(error)));
    await once(this.worker, 'message');
  }

  private async answer(message: { k: number; write: boolean; wrong?: string }): Promise<void> {
    if (message.wrong !== undefined) {
      this.wrong.push(message.wrong);
      return;
    }
    try {
      await serve(this.driver, message.k, message.write);
    } catch (error) {
      if (!(error instanceof KernelError && error.code === 'EFAULT')) throw error;
    }
    this.area.refill();
    this.mail.store(0, 1);
    this.mail.notify(0);
  }

  get nrAccesses(): number {
    return this.mail.load(1);
  }

  /** The mm thread does nothing until it is told that the thread has ended. */
  async kill(): Promise<void> {
    await this.worker!.terminate();
    await this.serving;
    this.driver.forget();
    this.area.recover();
  }

  /** What may happen to its pages meanwhile. */
  disturb(): void {
    const { mm, driver } = this;
    const va = driver.va + random(NR_PAGES - 64) * PAGE;
    const length = (1 + random(64)) * PAGE;
    switch (random(6)) {
      case 0:
        return mm.madvise(va, length, MADV_DONTNEED);
      case 1:
        mm.mprotect(va, length, PROT_READ);
        return mm.mprotect(driver.va, NR_PAGES * PAGE, RW);
      case 2:
        return mm.fork().exit();
      case 3:
        return void mm.host.reclaim.shrink(true, true, true);
      case 4:
        mm.munmap(va, length);
        return void mm.mmap(va, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
      default:
        return checkHost(mm.host);
    }
  }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

it('N25: of workers that are terminated at a hundred random instants every frame comes back, and nothing else is touched', async () => {
  const host = new Host({
    frames: 2048,
    arenaBytes: 2 ** 20,
    debug: true,
    swap: new MemorySwap({ sizeBytes: 2 ** 24 }),
  });
  const bystander = host.createMm();
  const there = bystander.mmap(0, 64 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let k = 0; k < 64; k++) bystander.writeSync(there + k * PAGE, new Uint8Array(PAGE).fill(k + 1));
  const mm = host.createMm();
  const users = [new User(mm, 0x4000_0000), new User(mm, 0x4000_0000 + NR_PAGES * PAGE)];
  let nrAccesses = 0;
  for (let round = 0; round < 50; round++) {
    await Promise.all(users.map((user) => user.start()));
    for (let turns = random(12); turns > 0; turns--) {
      await sleep(random(3));
      users[random(2)]!.disturb();
      expect(users.map(({ driver }) => driver.sub.poisoned)).toEqual([undefined, undefined]);
    }
    await Promise.all(users.map((user) => user.kill()));
    checkHost(host);
    expect(host.nrRemoteFrames).toBe(0);
    for (const user of users) nrAccesses += user.nrAccesses;
  }
  expect(users.flatMap(({ wrong }) => wrong)).toEqual([]);
  expect(nrAccesses).toBeGreaterThan(1000);
  expect(host.stats().remoteFaults).toBeGreaterThan(100);
  for (let k = 0; k < 64; k++) {
    const bytes = new Uint8Array(PAGE);
    bystander.readSync(there + k * PAGE, bytes);
    expect(bytes.every((byte) => byte === k + 1)).toBe(true);
  }
  mm.exit();
  for (const { area } of users) area.destroy();
  checkHost(host);
  bystander.exit();
  expect(host.frames.nrFree).toBe(host.frames.nrFrames);
});
