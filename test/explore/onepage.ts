import { checkHost, Host, MAP_ANONYMOUS, MAP_PRIVATE, MemorySwap, type Mm, PROT_READ, PROT_WRITE } from 'unpin/mm';
import { Device } from './externaldevice.js';
import { byteAt } from './world.js';

/** An mm with one page of private memory, with 1 in it, and a device on it: what the models of operations start from, and what holds in the end. */

export function setup(options: { sameFilled?: boolean } = {}) {
  const swap = new MemorySwap({ sizeBytes: 65536 });
  const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 12, swap, ...options });
  const mm = host.createMm();
  const va = mm.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va, new Uint8Array([1]));
  return {
    host,
    mm,
    va,
    device: new Device(mm, va, 'device'),
    wrote: false,
    child: undefined as Mm | undefined,
    seen: 0,
  };
}

export type State = ReturnType<typeof setup>;

/** At each step: a device maps what its page is, with no more rights. */
export const invariant = ({ device }: State) => device.wrong;

export function coherent({ host, device }: State): string | undefined {
  checkHost(host);
  return device.wrong;
}

/** What the device has written is there. */
export function nothingLost(state: State): string | undefined {
  const expected = state.wrote ? 2 : 1;
  const value = byteAt(state.mm, state.va);
  if (value !== expected) return `N15: the device's write is lost: ${value}`;
  state.host.reclaim.shrink(true, true, true);
  const later = byteAt(state.mm, state.va);
  return later === expected ? undefined : `N15: the page was taken for clean: ${value} is ${later} after reclaim`;
}

export const writer = (state: State) => {
  state.wrote = state.device.write(2);
};
export const reader = (state: State) => {
  const value = state.device.read();
  if (value !== undefined && value !== 1 && value !== 2) throw new Error(`N2: the device read ${value}`);
};

export const shrink = ({ host }: State) => void host.reclaim.shrink(true, true, true);
export function migrate({ host, mm, va }: State): void {
  host.migration.migrate([mm.pageTable.get(va / 4096) >>> 12], [host.frames.alloc(0)], true);
}
