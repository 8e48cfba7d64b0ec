import { afterEach, beforeEach, expect, test } from 'vitest';
import { BrokenInvariant, lockdepElsewhere, lockdepOnAwait, lockdepReset, Words } from '../../src/base/index.js';
import {
  Host,
  INVALIDATE_SEQ_WORDS,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type MmuNotifierOps,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  VA_SIZE,
} from '../../src/mm/index.js';

/** Each violation of base/lockorder.ts is found, and told with both places: lines of this file, innermost first. */

// Locks are left held here, over the end of a test too.
beforeEach(() => lockdepOnAwait(() => {}));
afterEach(() => lockdepReset());

const PAGE = 4096;
/** A place that begins in this file, to the end of its line. */
const HERE = String.raw`\S*test/mm/lockdep\.test\.ts:\d+.*`;

function setUp() {
  const host = new Host({ frames: 64, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 2 ** 22 }), debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, 16 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  const words = new Words(host.memory, host.arenaAlloc(4 * INVALIDATE_SEQ_WORDS, 4), INVALIDATE_SEQ_WORDS);
  mm.writeSync(va, new Uint8Array(4 * PAGE).fill(1));
  return { host, mm, va, words };
}

/** What is thrown, as text. */
function fault(fn: () => unknown): string {
  try {
    fn();
  } catch (error) {
    if (error instanceof BrokenInvariant) return error.message;
    throw error;
  }
  throw new Error('nothing was found');
}

test('N7: a lock taken in the wrong order is found, whether or not it deadlocks this time', () => {
  const { mm, va, words } = setUp();
  words.lock(0);
  const found = fault(() => mm.munmap(va, PAGE));
  expect(found).toMatch(/BUG N7: mmapLock is taken with driver lock held: the other way round/);
  expect(found).toMatch(new RegExp(`driver lock at: ${HERE}\nmmapLock at: \\S*src/mm/mm.ts:\\d+ < .*${HERE}`));
});

test('N7: two locks of drivers taken in both orders are found, by the second that comes', () => {
  const { words } = setUp();
  words.lock(0);
  words.lock(1);
  words.unlock(1);
  words.unlock(0);
  words.lock(1);
  const found = fault(() => words.lock(0));
  expect(found).toMatch(/N7: two locks \(driver lock, driver lock\) are taken in both orders/);
  expect(found.match(new RegExp(`at: ${HERE}`, 'g'))).toHaveLength(4);
});

test('N7: a lock taken twice is told, and no deadlock', () => {
  const { mm, words } = setUp();
  words.lock(2);
  expect(fault(() => words.lock(2))).toMatch(
    new RegExp(`taken twice\ndriver lock at: ${HERE}\ndriver lock at: ${HERE}`),
  );
  words.unlock(2);
  expect(fault(() => words.unlock(2))).toMatch(new RegExp(`given back that this thread does not hold\nhere: ${HERE}`));
  mm.mmapLock.lock('read');
  expect(fault(() => mm.mmapLock.lock('write'))).toMatch(/N7: mmapLock taken for write while it is held for read/);
});

test('N7: mmapLocks are taken in the order of their mms', () => {
  const { host, mm } = setUp();
  const second = host.createMm();
  mm.mmapLock.lock('read');
  second.mmapLock.lock('read');
  second.mmapLock.unlock();
  mm.mmapLock.unlock();
  second.mmapLock.lock('read');
  expect(fault(() => mm.mmapLock.lock('read'))).toMatch(
    new RegExp(`mmapLock 1 is taken after 2\nmmapLock at: ${HERE}`),
  );
});

test('N7: a wait with a lock held that forbids it is found before anything waits', () => {
  const { mm, va, words } = setUp();
  words.lock(0);
  const waiting = fault(() => words.wait(1, 99));
  expect(waiting).toMatch(
    new RegExp(`a wait for a word .* with driver lock held\ndriver lock at: ${HERE}\nwait at: ${HERE}`),
  );
  expect(fault(() => mm.faultInSync(va, 0))).toMatch(/a wait for a page with driver lock held/);
});

test('N7: an await with a lock held is found when the thread goes on to other work', async () => {
  const { mm, words } = setUp();
  const told: string[] = [];
  lockdepOnAwait((message) => told.push(message));
  words.lock(0);
  await Promise.resolve();
  await Promise.resolve();
  mm.mmapLock.lock('read');
  mm.mmapLock.unlock();
  await Promise.resolve();
  expect(told).toEqual([expect.stringMatching(new RegExp(`driver lock is held over an await\n.*taken at: ${HERE}`))]);
});

function broken(ops: (words: Words) => MmuNotifierOps): string | undefined {
  const { mm, va, words } = setUp();
  const sub = mmuNotifierRegister(mm, 0, VA_SIZE, ops(words));
  mm.madviseDontneed(va, PAGE);
  return sub.poisoned;
}

test('N7 N19: a lock held from start to end is found when start returns, and poisons', () => {
  const reason = broken((words) => ({
    invalidateRangeStart: () => words.lock(0),
    invalidateRangeEnd: () => words.unlock(0),
  }));
  expect(reason).toMatch(
    new RegExp(`driver lock is held from start to end\ndriver lock at: ${HERE}.*\ncallback at: \\S*/src/mm`),
  );
});

test('N7: a bracket that begins with a driver lock held is found: its callback would wait for it', () => {
  const { host, mm, words } = setUp();
  mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: () => 0 });
  words.lock(0);
  expect(fault(() => host.reclaim.shrink(true, true, true))).toMatch(
    new RegExp(`a bracket begins with driver lock held\ndriver lock at: ${HERE}\nstart at: \\S*src/mm`),
  );
});

test('N13: a callback that takes mmapLock or a page lock is found, also where nobody holds them', () => {
  const { mm, va, words } = setUp();
  const other = mm.host.createMm();
  const at = other.mmap(0, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  other.writeSync(at, new Uint8Array([7]));
  while (other.residentPages > 0) mm.host.reclaim.shrink(true, true, true);
  let slot = 0;
  while (mm.host.swap.count[slot] === 0) slot++;
  const takes: [string, () => unknown][] = [
    ['mmapLock', () => other.tryGetPage(at, 0)],
    ['page lock', () => mm.host.swapIn.start(slot)],
  ];
  for (const [name, take] of takes) {
    const sub = mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: () => void take() });
    mm.madviseDontneed(va, PAGE);
    expect(sub.poisoned).toMatch(
      new RegExp(`N13: callback invalidateRangeStart takes ${name}\ncallback at: \\S*src/mm.*\n${name} at: .*${HERE}`),
    );
    mmuNotifierUnregister(sub);
  }
  words.lock(0);
  words.unlock(0);
});

test('N12: a callback waits only in a bracket that may block', () => {
  const { host, mm, words } = setUp();
  const reasons = [true, false].map((blockable) => {
    mm.writeSync(0x10000000, new Uint8Array(4 * PAGE));
    const sub = mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: () => words.wait(0, 99) });
    host.reclaim.shrink(blockable, true, true);
    mmuNotifierUnregister(sub);
    return sub.poisoned;
  });
  expect(reasons).toEqual([
    undefined,
    expect.stringMatching(new RegExp(`N12: callback invalidateRangeStart waits for .*\nwait at: ${HERE}`, 's')),
  ]);
});

test('N13: a driver may take its own lock in a callback, not wait with it held', () => {
  const takes = (words: Words) => {
    words.lock(0);
    words.unlock(0);
  };
  expect(broken((words) => ({ invalidateRangeStart: () => takes(words) }))).toBeUndefined();
  const waits = (words: Words) => {
    words.lock(0);
    words.wait(1, 99);
  };
  expect(broken((words) => ({ invalidateRangeStart: () => waits(words) }))).toMatch(
    /a wait for a word .* with driver lock held/,
  );
});

test('S7 N7: a lock taken in mmapLock and given back in mmapUnlock may be held over a bracket; two of them in one order alone', () => {
  const { mm, va, words } = setUp();
  const hook = (i: number): MmuNotifierOps => ({ mmapLock: () => words.lock(i), mmapUnlock: () => words.unlock(i) });
  const subs = [0, 1].map((i) => mmuNotifierRegister(mm, 0, VA_SIZE, hook(i)));
  mm.madviseDontneed(va, PAGE);
  expect(subs.map((sub) => sub.poisoned)).toEqual([undefined, undefined]);
  const other = mm.host.createMm();
  const reversed = [1, 0].map((i) => mmuNotifierRegister(other, 0, VA_SIZE, hook(i)));
  other.mmap(0, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  expect(reversed[1]!.poisoned).toMatch(/two locks \(notifier hook, notifier hook\) are taken in both orders/);
});

test('what is held belongs to a thread: another holds nothing', () => {
  const { mm, va, words } = setUp();
  words.lock(0);
  lockdepElsewhere(() => mm.madviseDontneed(va, PAGE));
  words.unlock(0);
});
