import { afterEach, expect, test, vi } from 'vitest';
import { KvmMmu } from '../../src/kvm/mmu.js';
import { Vcpu } from '../../src/kvm/vcpu.js';
import { MIB, type SmpGuest, SmpWorld } from './smpworld.js';

/** The checks of a test build (kvm/framecheck.ts) see each protection that is taken out. That they see nothing while all is right: smphog.test.ts. */

const TIMEOUT_MS = 120_000;
/** Less than smphog's part `fill` takes. */
const FRAMES_BYTES = 2.5 * MIB;
const BOOTARGS = 'mib=5 seed=3 parts=0x100 rounds=1000';

afterEach(() => void vi.restoreAllMocks());

async function begin(threads: boolean): Promise<SmpGuest> {
  const world = new SmpWorld({ framesBytes: FRAMES_BYTES, checkFrames: true });
  return world.boot({ nrVcpus: 2, threads, bootargs: BOOTARGS });
}

const nothing = () => {};
test.each([
  ['the host does not wait for vCPUs', () => vi.spyOn(Vcpu.prototype, 'awaitFlush').mockImplementation(nothing)],
  ['vCPUs are not asked to flush', () => vi.spyOn(Vcpu.prototype, 'requestFlush').mockImplementation(nothing)],
])(
  'N3 N24: it is seen where %s',
  async (_what, spoil) => {
    spoil();
    const { guest, ended } = await begin(true);
    // Much is taken away, without end.
    const timer = setInterval(() => guest.vcpus.length > 0 && guest.mm.fork().exit(), 5);
    const { exit, reason } = await ended;
    clearInterval(timer);
    expect(exit).toBe('killed');
    expect(reason).toMatch(
      /vCPU \d: its thread has died: BUG N3: (hart \d: a stale access at|frame \d+ (is entered|was another))/,
    );
  },
  TIMEOUT_MS,
);

test(
  'N3 N24: it is seen where a TLB entry outlives its shadow entry',
  async () => {
    vi.spyOn(KvmMmu.prototype, 'flushVpn').mockImplementation(nothing);
    const { ended } = await begin(false);
    await expect(ended).rejects.toThrow(/BUG N3: (hart \d: a stale access at|frame \d+ is entered)/);
  },
  TIMEOUT_MS,
);
