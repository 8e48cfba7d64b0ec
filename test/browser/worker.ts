import { FRAMES_BYTES, lockAll, SWAP_BYTES, ThreeUsers } from '../../src/cli/threeusers.js';
import { type Environment, Kvm, type VcpuThreadHandle, type VcpuThreadInit } from '../../src/kvm/index.js';
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

export type Request = 'users' | 'guest' | 'threads';
export type Answer = { outcome: unknown } | { failure: string };

const MIB = 2 ** 20;
const PAGE_SIZE = 4096;
/** Of memhog on this thread, and of smphog with threads of its own. */
const MEMHOG = { image: 'memhog', ramBytes: 8 * MIB, framesBytes: 3 * MIB, bootargs: 'passes=1' };
const SMPHOG = { image: 'smphog', ramBytes: 16 * MIB, framesBytes: 5.25 * MIB, bootargs: 'mib=3 seed=3' };
/** A terminated worker does not say when it has stopped: it has long before this. */
const STOPPED_MS = 1000;

/** The parts of a worker's scope that are used: these sources see no DOM types. */
interface Scope {
  onmessage: ((event: { data: Request }) => void) | undefined;
  postMessage(answer: Answer): void;
  fetch(url: string): Promise<{ arrayBuffer(): Promise<ArrayBuffer> }>;
  Worker: new (
    url: string,
    options: { type: 'module' },
  ) => {
    onmessage: (event: { data: string }) => void;
    onerror: (event: { message: string }) => void;
    postMessage(init: VcpuThreadInit): void;
    terminate(): void;
  };
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

const environment: Environment = {
  nowMs: () => performance.timeOrigin + performance.now(),
  defer,
  setTimer: (fn: () => void, ms: number) => {
    const timer = setTimeout(fn, ms);
    return () => clearTimeout(timer);
  },
  startVcpuThread,
};

function startVcpuThread(init: VcpuThreadInit, onPost: () => void, onExit: (reason: string) => void): VcpuThreadHandle {
  const worker = new scope.Worker('/vcpuworker.js', { type: 'module' });
  worker.onmessage = ({ data }) => (data === 'posted' ? onPost() : onExit('it has ended'));
  worker.onerror = ({ message }) => onExit(message);
  worker.postMessage(init);
  const terminate = async () => {
    worker.terminate();
    await new Promise((resolve) => setTimeout(resolve, STOPPED_MS));
    onExit('it was terminated');
  };
  return { terminate };
}

interface GuestInput {
  image: string;
  ramBytes: number;
  framesBytes: number;
  bootargs: string;
}

async function runGuest({ image, framesBytes, ...input }: GuestInput, nrVcpus: number): Promise<GuestOutcome> {
  const host = createHost(framesBytes, 96 * MIB);
  let console = '';
  const guest = await BoardGuest.create({
    name: 'guest',
    kvm: new Kvm(host, environment),
    host,
    ...{ ...input, nrVcpus, threads: nrVcpus > 1 },
    kernel: new Uint8Array(await (await scope.fetch(`/${image}.img`)).arrayBuffer()),
    pin: false,
    gunzip: (bytes) => bytes,
    console: (bytes) => (console += String.fromCharCode(...bytes)),
  });
  const { exit, reason } = await guest.run();
  const { swapInPages } = host.stats();
  await host.stop();
  return { exit, reason, console, swapInPages };
}

const WORK: Record<Request, () => Promise<unknown>> = {
  users: runUsers,
  guest: () => runGuest(MEMHOG, 1),
  threads: () => runGuest(SMPHOG, 2),
};

scope.onmessage = ({ data }) => {
  WORK[data]().then(
    (outcome) => scope.postMessage({ outcome }),
    (error) => scope.postMessage({ failure: String(error?.stack ?? error) }),
  );
};
