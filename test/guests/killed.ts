import { expect } from 'vitest';
import type { BoardGuest } from '../../src/vmm/index.js';
import { Random } from '../isa/random.js';
import { MIB, SmpWorld, verdict } from './smpworld.js';

/**
 * Threads of vCPUs that are killed at random instants: while they boot, run, fault, fence each other, wait for the lock of their VM or hold it; in less
 * memory than their guest has; some at once; beside a guest that goes on. A guest whose thread was killed dies and says so; the other verifies all it
 * wrote; frames and arena are as they were before.
 *
 * Use: `await killThreads({ nrKills, seed })`.
 */

const FRAMES_BYTES = 6 * MIB;
/** A kill comes within this time from the first that the guest has said; one of four from its begin. */
const MAX_DELAY_MS = 400;
const ENDLESS = 'mib=5 rounds=1000000 parts=';
/** Of smphog: lr/sc, litmus, handing on, remapping, dirty bits, code, interrupts, megapages, filling. */
const PARTS = [0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x108];

export interface KillOptions {
  nrKills: number;
  seed: number;
}

export async function killThreads({ nrKills, seed }: KillOptions): Promise<void> {
  const world = new SmpWorld({ framesBytes: FRAMES_BYTES });
  const random = new Random(seed);
  const [frames, arena] = [world.framesInUse(), world.arenaInUse];
  for (let kill = 0; kill < nrKills; kill++) {
    const where = `seed ${seed}, kill ${kill}`;
    await killOne(world, random, where);
    expect(world.framesInUse(), where).toBe(frames);
    expect(world.arenaInUse, where).toBe(arena);
    expect(world.host.stats().pinnedFrames, where).toBe(0);
  }
  await world.close();
}

/** Beside a guest on the mm thread or in a thread of its own, which must come to its end. */
async function killOne(world: SmpWorld, random: Random, where: string): Promise<void> {
  const other = await world.boot({ image: 'memhog', bootargs: 'mib=4 passes=1', threads: random.oneIn(2) });
  const victim = await world.boot({
    nrVcpus: 2 + random.below(2),
    threads: true,
    bootargs: ENDLESS + random.pick(PARTS),
  });
  if (!random.oneIn(4)) while (victim.console() === '') await later(5);
  await later(random.below(MAX_DELAY_MS));
  await killSome(victim.guest, random);
  const report = await victim.ended;
  expect(report, where).toMatchObject({
    exit: 'killed',
    reason: expect.stringMatching(/vCPU \d: its thread has died/),
  });
  expect(await other.ended, `${where}: ${other.console()}`).toMatchObject({ exit: 'poweroff' });
  expect(verdict(other.console()), where).toBeDefined();
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** One of its threads, or all, of those that have begun. */
async function killSome(guest: BoardGuest, random: Random): Promise<void> {
  const chosen = random.oneIn(4) ? guest.vcpus : [random.pick(guest.vcpus)];
  const kills = await Promise.allSettled(chosen.map((vcpu) => vcpu.killThread()));
  if (kills.some(({ status }) => status === 'fulfilled')) return;
  await later(10);
  await killSome(guest, random);
}
