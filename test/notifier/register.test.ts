import { expect, test } from 'vitest';
import { Host, MemorySwap, type MmapLockMode } from '../../src/mm/index.js';
import {
  PteNotifier,
  pteNotifierRegister,
  pteNotifierUnregister,
  vmaClosePteNotifiers,
} from '../../src/notifier/index.js';
import { ANON, PAGE, recorder, setUp, touch } from './recorder.js';

/** Registering, and what breaks the contract. */

test('S1: one pn twice is EBUSY; after its end it may be registered again, elsewhere too', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  expect(() => pteNotifierRegister(pn, vma)).toThrow(/EBUSY.*one link/);
  mm.munmap(va, 16 * PAGE);
  const other = mm.host.createMm();
  const at = other.mmap(va, 4 * PAGE, 3, ANON);
  pteNotifierRegister(pn, other.findVma(at)!);
  expect([pn.mm, pn.registered]).toEqual([other, true]);
  touch(other, at, 0, 1);
  other.exit();
  expect(log).toEqual(['close [0, 16)', 'clear 0 of [0, 4)', 'close [0, 4)', 'release']);
});

test('a VMA that is gone, and a driver that was never registered, are EINVAL', () => {
  const { mm, va, vma } = setUp();
  const { pn } = recorder(va);
  mm.munmap(va, 16 * PAGE);
  expect(() => pteNotifierRegister(pn, vma)).toThrow(/EINVAL.*must be one of mm 1/);
  expect(() => pteNotifierUnregister(pn)).toThrow(/EINVAL/);
  expect(pn.registered).toBe(false);
});

for (const op of ['clear', 'close', 'release', 'lock', 'unlock'] as const) {
  test(`N10 N16 N17: register and unregister inside ${op} are refused`, () => {
    const { mm, va, vma } = setUp();
    const second = recorder(va);
    const errors: unknown[] = [];
    const attempt = (fn: () => void) => {
      try {
        fn();
      } catch (error) {
        errors.push((error as { code: string }).code);
      }
    };
    const { pn } = recorder(va, {
      [op]: () => {
        attempt(() => pteNotifierUnregister(pn));
        attempt(() => pteNotifierUnregister(second.pn));
      },
    });
    pteNotifierRegister(second.pn, vma);
    pteNotifierRegister(pn, vma);
    touch(mm, va, 0, 1);
    mm.munmap(va, 16 * PAGE);
    mm.exit();
    const refused = errors.length;
    if (op === 'release') {
      // At munmap the area was closed: there is no registration left to release.
      expect(refused).toBe(0);
      const again = mm.host.createMm();
      pteNotifierRegister(pn, again.findVma(again.mmap(0, PAGE, 3, ANON))!);
      again.exit();
    }
    expect(errors.length).toBeGreaterThanOrEqual(2);
    for (const code of errors) expect(['EDEADLK', 'EINVAL']).toContain(code);
    expect(errors[0]).toBe('EDEADLK');
    expect(pn.poisoned).toBeUndefined();
  });
}

const broken = {
  'clear that throws': {
    clear: () => {
      throw new Error('oops');
    },
  },
  'clear that returns a promise': { clear: async () => {} },
  'clear that returns a promise that rejects': {
    clear: async () => {
      throw new Error('late');
    },
  },
  'clear that calls into its mm': { clear: (pn: PteNotifier) => pn.mm!.munmap(pn.start!, PAGE) },
};

for (const [what, ops] of Object.entries(broken)) {
  test(`S12 N19: a ${what} poisons: told, never called again, its frames pinned, everyone else goes on`, async () => {
    const { host, mm, va, vma } = setUp();
    const reasons: string[] = [];
    const pn = new PteNotifier(ops, { onPoisoned: (_pn, reason) => reasons.push(reason) });
    const good = recorder(va);
    pteNotifierRegister(pn, vma);
    pteNotifierRegister(good.pn, vma);
    touch(mm, va, 0, 4);
    mm.madviseDontneed(va, 2 * PAGE);
    await Promise.resolve();
    expect(reasons).toEqual([pn.poisoned]);
    expect(pn.poisoned).toMatch(what.includes('promise') ? /clear returned a promise/ : /oops|N13/);
    expect(good.log).toEqual(['clear 0 of [0, 16)', 'clear 1 of [0, 16)']);
    expect(host.stats()).toMatchObject({ poisoned: 1, pinnedFrames: 4 });
    pteNotifierUnregister(pn);
    mm.exit();
    expect([host.frames.nrFree, good.log.at(-1)]).toEqual([60, 'release']);
  });
}

for (const op of ['close', 'lock', 'unlock', 'release'] as const) {
  test(`S12 N19: a promise from ${op} poisons`, () => {
    const { host, mm, va, vma } = setUp();
    const { log, pn } = recorder(va, { [op]: async () => {} });
    pteNotifierRegister(pn, vma);
    touch(mm, va, 0, 1);
    mm.exit();
    expect(host.stats().poisoned).toBe(1);
    expect(log.filter((line) => line.startsWith('clear')).length).toBe(op.endsWith('lock') ? 0 : 1);
    expect(pn.registered).toBe(false);
  });
}

test('N19: a driver that overruns its time is poisoned', () => {
  let nowMs = 0;
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, now: () => nowMs, notifierBudgetMs: 5 });
  const mm = host.createMm();
  const va = mm.mmap(0, 4 * PAGE, 3, ANON);
  const pn = new PteNotifier({ clear: () => void (nowMs += 6) });
  pteNotifierRegister(pn, mm.findVma(va)!);
  touch(mm, va, 0, 1);
  mm.madviseDontneed(va, PAGE);
  expect(pn.poisoned).toMatch(/took 6.0 ms/);
});

test('S7: lock and unlock are called around mmapLock, read or write, by registration and back; not by reclaim', () => {
  const { host, mm, va, vma } = setUp();
  const log: string[] = [];
  const hooks = (name: string) => {
    const pn = new PteNotifier({
      clear: () => void log.push(`${name} clear`),
      lock: (_pn: PteNotifier, mode: MmapLockMode) => void log.push(`${name} lock ${mode} ${mm.mmapLock.held}`),
      unlock: (_pn: PteNotifier, mode: MmapLockMode) => void log.push(`${name} unlock ${mode} ${mm.mmapLock.held}`),
    });
    return pn;
  };
  const high = mm.mmap(va + 64 * PAGE, 4 * PAGE, 3, ANON);
  const [a, b] = [hooks('a'), hooks('b')];
  // The order is that of registration, not of address.
  pteNotifierRegister(a, mm.findVma(high)!);
  pteNotifierRegister(b, vma);
  log.length = 0;
  mm.madviseDontneed(va, PAGE);
  expect(log).toEqual(['a lock read false', 'b lock read false', 'b unlock read false', 'a unlock read false']);
  touch(mm, va, 0, 1);
  log.length = 0;
  mm.munmap(va, PAGE);
  expect(log).toEqual([
    'a lock write false',
    'b lock write false',
    'b clear',
    'b unlock write false',
    'a unlock write false',
  ]);
  touch(mm, va, 1, 1);
  log.length = 0;
  host.reclaim.shrink(true, true, true);
  expect(log).toEqual(['b clear']);
});

test('S7: who is registered or unregistered in between is told in pairs', () => {
  const { va, vma } = setUp();
  let held = 0;
  const counting = { lock: () => void held++, unlock: () => void held-- };
  const [a, b] = [recorder(va, counting), recorder(va, counting)];
  pteNotifierRegister(a.pn, vma);
  expect(held).toBe(0);
  pteNotifierRegister(b.pn, vma);
  pteNotifierUnregister(a.pn);
  vmaClosePteNotifiers(vma);
  expect(held).toBe(0);
});
