import { FRAMES_BYTES, lockAll, SWAP_BYTES, ThreeUsers } from '../../src/cli/threeusers.js';
import { Kvm } from '../../src/kvm/index.js';
import { Host, MemorySwap } from '../../src/mm/index.js';
import { BoardGuest } from '../../src/vmm/index.js';

/**
 * What the smoke test runs in a worker of Chromium: `unpin start`'s workload, and our guest. Bundled for browsers, so an import of
 * Node anywhere below is an error of the build.
 */

export interface UsersOutcome {
  locked: (string | undefined)[];
  verifiedBytes: number[];
  clears: number;
  pinnedFrames: number;
  swapOutPages: number;
  swapInPages: number;
}

export interface GuestOutcome {
  exit: string;
  reason: string;
  console: string;
  swapInPages: number;
}

export type Request = 'users' | 'guest';
export type Answer = { outcome: unknown } | { failure: string };

const MIB = 2 ** 20;
const PAGE_SIZE = 4096;
const GUEST_RAM = 8 * MIB;
const GUEST_FRAMES = 3 * MIB;

/** The parts of a worker's scope that are used: these sources see no DOM types. */
interface Scope {
  onmessage: ((event: { data: Request }) => void) | undefined;
  postMessage(answer: Answer): void;
  fetch(url: string): Promise<{ arrayBuffer(): Promise<ArrayBuffer> }>;
}
const scope = globalThis as unknown as Scope;

/** A task of the worker's own, unlike a promise: others have their turn. */
function defer(fn: () => void): void {
  const { port1, port2 } = new MessageChannel();
  const onmessage = () => {
    port1.close();
    fn();
  };
  Object.assign(port1, { onmessage });
  port2.postMessage(0);
}

function createHost(framesBytes: number, arenaBytes: number): Host {
  const swap = new MemorySwap({ sizeBytes: SWAP_BYTES });
  return new Host({ frames: framesBytes / PAGE_SIZE, arenaBytes, swap, now: () => performance.now(), defer });
}

async function runUsers(): Promise<UsersOutcome> {
  const host = createHost(FRAMES_BYTES, 16 * MIB);
  const locked = (await lockAll(host)).map(({ refusal }) => refusal?.message);
  const users = new ThreeUsers(host, { turn: () => new Promise((resolve) => defer(resolve)) });
  await users.run();
  const { pinnedFrames, swapOutPages, swapInPages } = host.stats();
  const clears = users.users.reduce((sum, { ram }) => sum + ram.stats.clears, 0);
  const verifiedBytes = users.users.map((user) => user.verifiedBytes);
  users.destroy();
  await host.stop();
  return { locked, verifiedBytes, clears, pinnedFrames, swapOutPages, swapInPages };
}

const environment = {
  nowMs: () => performance.now(),
  defer,
  setTimer: (fn: () => void, ms: number) => {
    const timer = setTimeout(fn, ms);
    return () => clearTimeout(timer);
  },
};

async function runGuest(): Promise<GuestOutcome> {
  const host = createHost(GUEST_FRAMES, 96 * MIB);
  let console = '';
  const guest = await BoardGuest.create({
    name: 'guest',
    kvm: new Kvm(host, environment),
    host,
    ramBytes: GUEST_RAM,
    kernel: new Uint8Array(await (await scope.fetch('/memhog.img')).arrayBuffer()),
    bootargs: 'passes=1',
    pin: false,
    gunzip: (bytes) => bytes,
    console: (bytes) => (console += String.fromCharCode(...bytes)),
  });
  const { exit, reason } = await guest.run();
  const { swapInPages } = host.stats();
  await host.stop();
  return { exit, reason, console, swapInPages };
}

scope.onmessage = ({ data }) => {
  const work: Promise<unknown> = data === 'users' ? runUsers() : runGuest();
  work.then(
    (outcome) => scope.postMessage({ outcome }),
    (error) => scope.postMessage({ failure: String(error?.stack ?? error) }),
  );
};
