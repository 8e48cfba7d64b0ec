import { expect, test } from 'vitest';
import { checkHost, Host, MAP_SHARED, MemoryStore, MemorySwap, type StorePages } from '../../src/mm/index.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;

/** A store that keeps a number with each page, and is asked before one of them goes. */
class NumberingStore extends MemoryStore {
  cached!: StorePages;
  readonly asked: [number, number][] = [];
  readonly gone: [number, number][] = [];
  keep = false;

  attach(pages: StorePages): void {
    this.cached = pages;
  }

  releasePage(index: number, value: number): boolean {
    this.asked.push([index, value]);
    return !this.keep;
  }

  invalidatePage(index: number, value: number): void {
    this.gone.push([index, value]);
  }
}

async function setUp() {
  const host = new Host({
    frames: 128,
    arenaBytes: 65536,
    debug: true,
    defer: (fn) => setImmediate(fn),
    swap: new MemorySwap({ sizeBytes: 256 * PAGE }),
  });
  const store = new NumberingStore({ sizeBytes: 8 * PAGE });
  const file = host.openFile(store);
  await file.read(new Uint8Array(8 * PAGE), 0);
  for (let p = 0; p < 4; p++) expect(store.cached.setPrivate(p, 1000 + p)).toBe(true);
  return { host, store, file };
}

async function pressure(host: Host): Promise<void> {
  for (let i = 0; i < 20; i++) {
    host.reclaim.shrink(true, false, true);
    await host.writeback.drain();
    await host.pageCache.writeback.drain();
  }
}

test("S9: a frame's private is the store's: neither drivers, nor write-back, nor the swap cache of other pages disturb it", async () => {
  const { host, store, file } = await setUp();
  store.keep = true;
  const mm = host.createMm();
  const va = mm.mmap(0, 8 * PAGE, 3, MAP_SHARED, file);
  const driver = new TestDriver(mm);
  for (let p = 0; p < 8; p++) await driver.store(va + p * PAGE, p);
  await file.fsync();
  // Anonymous and shared memory come and go through swap beside it, and take every other frame in turn.
  const anon = mm.mmap(0, 200 * PAGE, 3, 0x22);
  const shared = mm.mmap(0, 50 * PAGE, 3, 0x21);
  for (let p = 0; p < 200; p++) await mm.write(anon + p * PAGE, new Uint8Array(8).fill(p));
  for (let p = 0; p < 50; p++) await mm.write(shared + p * PAGE, new Uint8Array(8).fill(p));
  await pressure(host);
  checkHost(host);
  expect(host.stats().swapOutPages).toBeGreaterThan(100);
  for (let p = 0; p < 8; p++) expect(store.cached.getPrivate(p)).toBe(p < 4 ? 1000 + p : undefined);
  for (let p = 0; p < 8; p++) expect(await driver.load(va + p * PAGE)).toBe(p);
  expect(store.asked.length).toBeGreaterThan(0);
  expect(store.gone).toEqual([]);
  await host.stop();
});

test('a page goes when its store lets it, and the store is told', async () => {
  const { host, store } = await setUp();
  store.keep = true;
  await pressure(host);
  expect([host.stats().nrFilePages, store.gone]).toEqual([4, []]);
  store.keep = false;
  await pressure(host);
  expect(host.stats().nrFilePages).toBe(0);
  expect(store.gone.sort()).toEqual([0, 1, 2, 3].map((p) => [p, 1000 + p]));
  expect([store.cached.getPrivate(0), store.cached.setPrivate(0, 1)]).toEqual([undefined, false]);
  checkHost(host);
  await host.stop();
});

test('truncation and holes tell the store, and do not ask it', async () => {
  const { host, store, file } = await setUp();
  store.keep = true;
  await file.fallocate(3, PAGE, PAGE);
  await file.truncate(3 * PAGE);
  expect([store.asked, store.gone]).toEqual([
    [],
    [
      [1, 1001],
      [3, 1003],
    ],
  ]);
  checkHost(host);
  await host.stop();
});

test('callbacks that throw keep the page, and nothing else breaks', async () => {
  const { host, store } = await setUp();
  store.releasePage = () => {
    throw new Error('no');
  };
  store.invalidatePage = () => {
    throw new Error('no');
  };
  await pressure(host);
  expect(host.stats().nrFilePages).toBe(4);
  checkHost(host);
  await host.stop();
  expect(host.stats().framesFree).toBe(128);
});
