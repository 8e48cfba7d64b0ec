import { checkVm, KVM_MEM_LOG_DIRTY_PAGES } from '../../src/kvm/index.js';
import { Random } from '../isa/random.js';
import { MIB, type SmpGuest, SmpWorld, verdict } from './smpworld.js';

/**
 * Guests under fire: two of two vCPUs each, in threads, in frames for a third of their RAM, poisoned when they are freed and tagged, so that each access of
 * a guest is looked at (KvmOptions.checkFrames). They do all parts of smphog, give pages to the balloon and report others free, and use RAM through a slot
 * that moves. Meanwhile their dirty logs go on and off and are read, that slot moves, comes and goes, pages migrate, and their mms are forked. Now and then all
 * vCPUs of one are stopped: its RAM moves away and back, or each TLB, shadow and direct entry is compared with the host's page tables.
 *
 * Use: `await underFire(seed)`: what each guest said last, and what it met; to be compared with `pinned(seed)`.
 */

const RAM_BYTES = 16 * MIB;
const NR_GUESTS = 2;
const FRAMES_BYTES = Math.floor((NR_GUESTS * RAM_BYTES) / 3 / 4096) * 4096;
const EVERY_MS = 20;
/** Beyond the guest's RAM: one of 64 places, as smphog's part `alias` looks for it. */
const ALIAS_GPA = 0x1_0000_0000;
const ALIAS_PAGES = 512;
const NR_ALIAS_PLACES = 64;
/** Where RAM is while its guest is stopped. */
const ELSEWHERE_GPA = 0x2_0000_0000;
/** All parts. */
const PARTS = 0xfff;

export type Met = Record<string, number>;
const bootargs = (seed: number, guest: number) =>
  `mib=4 parts=${PARTS} alias=${ALIAS_GPA} seed=${seed * NR_GUESTS + guest}`;

export async function pinned(seed: number): Promise<(string | undefined)[]> {
  const world = new SmpWorld({ framesBytes: (NR_GUESTS + 1) * RAM_BYTES });
  const guests = await boot(world, seed, true);
  await Promise.all(guests.map(({ ended }) => ended));
  await world.close();
  return guests.map((guest) => verdict(guest.console()));
}

export async function underFire(seed: number): Promise<{ verdicts: (string | undefined)[]; met: Met }> {
  const world = new SmpWorld({ framesBytes: FRAMES_BYTES, checkFrames: true });
  const guests = await boot(world, seed, false);
  const fire = new Fire(world, guests, new Random(seed));
  const timer = setInterval(() => fire.step(), EVERY_MS);
  await Promise.all(guests.map(({ ended }) => ended));
  clearInterval(timer);
  await fire.checked;
  const { swapInPages, swapOutPages, shootdowns, pinnedFrames, poisoned } = world.host.stats();
  const given = guests.map(({ console }) => Number(/balloon: (\d+) pages/.exec(console())?.[1] ?? 0));
  const hits = guests.map(({ console }) => Number(/place, (\d+) of them met/.exec(console())?.[1] ?? 0));
  await world.close();
  if (fire.failure !== undefined) throw fire.failure;
  return {
    verdicts: guests.map((guest) => verdict(guest.console()) ?? guest.console()),
    met: {
      ...fire.met,
      givenBack: sum(given),
      storesThroughSlots: sum(hits),
      swapInPages,
      swapOutPages,
      shootdowns,
      pinnedFrames,
      poisoned,
    },
  };
}

function boot(world: SmpWorld, seed: number, pin: boolean): Promise<SmpGuest[]> {
  const options = { nrVcpus: 2, threads: true, ramBytes: RAM_BYTES, pin, balloon: true };
  return Promise.all(
    Array.from({ length: NR_GUESTS }, (_, i) => world.boot({ ...options, bootargs: bootargs(seed, i) })),
  );
}

class Fire {
  readonly met: Met = { logsRead: 0, dirtyPages: 0, slotsMoved: 0, ramMoved: 0, migrated: 0, forks: 0, checks: 0 };
  failure: unknown;
  checked: Promise<void> = Promise.resolve();
  private busy = false;
  private readonly world: SmpWorld;
  private readonly guests: readonly SmpGuest[];
  private readonly random: Random;

  constructor(world: SmpWorld, guests: readonly SmpGuest[], random: Random) {
    this.world = world;
    this.guests = guests;
    this.random = random;
  }

  /** One thing to one guest. */
  step(): void {
    const chosen = this.random.pick(this.guests);
    if (this.busy || chosen.guest.vcpus.length === 0) return;
    try {
      const what = this.random.below(16);
      if (what < 5) this.dirtyLog(chosen);
      else if (what < 10) this.moveSlot(chosen);
      else if (what < 12) this.met.migrated! += this.world.host.compact().nrMigrated;
      else if (what < 15) this.fork(chosen);
      else
        this.checked = this.stopped(
          chosen,
          this.random.oneIn(2) ? () => this.moveRam(chosen) : () => this.check(chosen),
        );
    } catch (error) {
      this.failure ??= error;
    }
  }

  private dirtyLog({ guest }: SmpGuest): void {
    const { vm } = guest.vcpus[0]!;
    const { slot, flags, hva, gpa, bytes } = regionOf(guest, 0);
    if ((flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0) {
      for (const byte of vm.getDirtyLog(0)) this.met.dirtyPages! += nrBits(byte);
      this.met.logsRead!++;
      if (!this.random.oneIn(4)) return;
    }
    const other = flags ^ KVM_MEM_LOG_DIRTY_PAGES;
    vm.setUserMemoryRegion({ slot, flags: other, guestPhysAddr: gpa, memorySize: bytes, userspaceAddr: hva });
  }

  /** A second view of some of its RAM. */
  private moveSlot({ guest }: SmpGuest): void {
    const { vm } = guest.vcpus[0]!;
    const known = vm.slots.bySlot(1);
    const memorySize = known !== undefined && this.random.oneIn(3) ? 0 : ALIAS_PAGES * 4096;
    const guestPhysAddr = ALIAS_GPA + this.random.below(NR_ALIAS_PLACES) * ALIAS_PAGES * 4096;
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr, memorySize, userspaceAddr: regionOf(guest, 0).hva });
    this.met.slotsMoved!++;
  }

  /** The child keeps what the guest had, and is gone a little later. */
  private fork({ guest }: SmpGuest): void {
    const child = guest.mm.fork();
    this.met.forks!++;
    setTimeout(() => child.exit(), this.random.below(3 * EVERY_MS));
  }

  /** Does `act` while no vCPU of the guest is in it. */
  private async stopped({ guest }: SmpGuest, act: () => void): Promise<void> {
    this.busy = true;
    try {
      await guest.pause();
      if (guest.state === 'paused') act();
    } catch (error) {
      this.failure ??= error;
    }
    guest.resume();
    this.busy = false;
  }

  private check({ guest }: SmpGuest): void {
    checkVm(guest.vcpus[0]!.vm);
    this.met.checks!++;
  }

  /** Away and back: nothing of what was mapped may be used afterwards, and nothing may be lost. */
  private moveRam({ guest }: SmpGuest): void {
    const { vm } = guest.vcpus[0]!;
    const { slot, flags, hva, gpa, bytes } = regionOf(guest, 0);
    for (const guestPhysAddr of [ELSEWHERE_GPA, gpa])
      vm.setUserMemoryRegion({ slot, flags, guestPhysAddr, memorySize: bytes, userspaceAddr: hva });
    this.met.ramMoved!++;
  }
}

function regionOf(guest: SmpGuest['guest'], slot: number) {
  const { flags, baseGfn, baseVpn, nrPages } = guest.vcpus[0]!.vm.slots.bySlot(slot)!;
  return { slot, flags, gpa: baseGfn * 4096, hva: baseVpn * 4096, bytes: nrPages * 4096 };
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

function nrBits(byte: number): number {
  let nr = 0;
  for (let b = byte; b !== 0; b &= b - 1) nr++;
  return nr;
}
