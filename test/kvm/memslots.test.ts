import { expect, test } from 'vitest';
import { Memslots } from '../../src/kvm/memslots.js';
import { Host } from '../../src/mm/index.js';

/** The table of memslots in shared words, seen from its owner and from another thread's view. */

function newSlots(): { host: Host; slots: Memslots; view: Memslots } {
  const host = new Host({ frames: 64, arenaBytes: 2 ** 20 });
  const slots = new Memslots(host);
  return { host, slots, view: Memslots.attach({ buffer: host.memory.buffer }, structuredClone(slots.descriptor())) };
}

test('M29: an attached view sees slots come, change and go, and knows a stale one', () => {
  const { slots, view } = newSlots();
  expect(view.find(0x80000)).toBeUndefined();
  slots.add({ slot: 3, baseGfn: 0x80000, nrPages: 16, baseVpn: 100, flags: 0 }, slots.alloc(16));
  const found = view.find(0x8000f)!;
  expect(found).toMatchObject({ slot: 3, baseGfn: 0x80000, nrPages: 16, baseVpn: 100, flags: 0 });
  expect(found.hva(0x80001)).toBe(101 * 4096);
  expect(view.find(0x80010)).toBeUndefined();
  slots.find(0x80002)!.direct.store(2, 77);
  expect(found.direct.load(2)).toBe(77);

  slots.add({ slot: 0, baseGfn: 2 ** 32 - 1, nrPages: 1, baseVpn: 2 ** 27 - 1, flags: 0 }, slots.alloc(1));
  expect(view.find(2 ** 32 - 1)).toMatchObject({ slot: 0, baseVpn: 2 ** 27 - 1 });
  // What did not change is the same object, so a cached one stays usable.
  expect(view.find(0x80000)).toBe(found);
  expect(view.isCurrent(found)).toBe(true);

  const { arenaAddr } = found;
  slots.add({ slot: 3, baseGfn: 0x90000, nrPages: 16, baseVpn: 100, flags: 0 }, arenaAddr);
  expect(view.isCurrent(found)).toBe(false);
  expect(view.find(0x80000)).toBeUndefined();
  const moved = view.find(0x90002)!;
  expect(moved.direct.load(2)).toBe(77);
  slots.remove(moved);
  slots.free(moved);
  expect(view.isCurrent(moved)).toBe(false);
  expect(view.find(0x90002)).toBeUndefined();
  expect(view.all().map((s) => s.slot)).toEqual([0]);
});

test('M35: destroy gives back all that the table took', () => {
  const { host, slots } = newSlots();
  const rest = new Host({ frames: 64, arenaBytes: 2 ** 20 });
  slots.add({ slot: 0, baseGfn: 0, nrPages: 1000, baseVpn: 0, flags: 0 }, slots.alloc(1000));
  slots.destroy();
  // The arena is one hole again: it serves a block as large as an untouched one does.
  const all = 2 ** 20 - 4096;
  expect(host.arenaAlloc(all, 8)).toBe(rest.arenaAlloc(all, 8));
});
