import {
  HeldPages,
  type Host,
  INVALIDATE_SEQ_LABEL,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  type Mm,
  Words,
} from '../mm/index.js';
import {
  CSR,
  HART_EXIT_ECALL,
  HART_EXIT_REQUEST,
  HART_EXIT_TRAP,
  HART_EXIT_WAIT,
  type Hart,
  MODE_SUPERVISOR,
  SATP_MODE_SV39,
  SSTATUS_FS,
  SSTATUS_SUM,
} from '../riscv/index.js';
import { LGUEST_TRAP_ENTRY } from './abi.js';
import { LguestClock } from './clock.js';
import { Fate, LG_DEAD, LG_OK, LG_WAIT } from './death.js';
import type { LguestDevice } from './device.js';
import { Exceptions } from './exceptions.js';
import { GuestAccess } from './guestaccess.js';
import { Hypercalls } from './hypercalls.js';
import type { LguestInit } from './init.js';
import { Interrupts, NO_INTERRUPT } from './interrupts.js';
import type { LguestPending } from './lguest.js';
import { LguestData } from './lguestdata.js';
import { GuestMmu } from './mmu.js';
import { LINEAR_ROOT, PageDirectories } from './pgdirs.js';
import { Traps } from './traps.js';

/**
 * A guest at work (Linux: struct lg_cpu, run_guest): the hart, what the guest sees of memory, and what is done for it when it comes out. `step` runs
 * it until something must be waited for or somebody else must act, and never waits itself: its owner does that (lguest.ts).
 *
 * One round: hypercalls, an exception that is the guest's, an interrupt, then the guest itself; what it came out for is noted, and the next round begins with it.
 * Whatever lacks a page is left as it was, and begun again in a later round; the pages that were waited for are held until then (N26).
 */

/** What `step` came back for: others have their turn, a page is absent, the guest is idle, the launcher must act, the guest is dead. */
export const STEP_TURN = 0;
export const STEP_WAIT = 1;
export const STEP_HALT = 2;
export const STEP_PENDING = 3;
export const STEP_DEAD = 4;
/** The next round. */
const STEP_ON = -1;

/** Instructions of a slice, about a millisecond, and of the shortest before a timer. */
const SLICE_INSTRUCTIONS = 200_000;
const SHORTEST_SLICE = 2_000;
/** cycle, time and instret may be read in U-mode. */
const SCOUNTEREN_ALL = 7;

export class LgCpu {
  readonly mm: Mm;
  readonly host: Host;
  readonly hart: Hart;
  readonly fate = new Fate();
  readonly clock: LguestClock;
  readonly access: GuestAccess;
  readonly directories: PageDirectories;
  readonly invalidate: InvalidateSeq;
  readonly mmu: GuestMmu;
  readonly data: LguestData;
  readonly traps: Traps;
  readonly interrupts: Interrupts;
  readonly hypercalls: Hypercalls;
  readonly exceptions: Exceptions;
  readonly held: HeldPages;
  readonly nowMs: () => number;
  private readonly wordsAddr: number;
  /** instret when the present instruction began to wait. */
  private waitingAt = -1;

  /** Throws KernelError ENOMEM where the arena has no room. */
  constructor(device: LguestDevice, mm: Mm, init: LguestInit) {
    const { env, options, engine } = device;
    const { base, pfnLimit, deviceLimit = pfnLimit } = init;
    this.mm = mm;
    this.host = mm.host;
    this.nowMs = () => env.nowMs();
    this.wordsAddr = this.host.arenaAlloc(INVALIDATE_SEQ_WORDS * 4, 4);
    const words = new Words(this.host.memory, this.wordsAddr, INVALIDATE_SEQ_WORDS, INVALIDATE_SEQ_LABEL);
    for (let i = 0; i < INVALIDATE_SEQ_WORDS; i++) words.writeOnce(i, 0);
    this.invalidate = new InvalidateSeq(words, 0);
    this.clock = new LguestClock(this.nowMs, device.unixMs);
    this.directories = new PageDirectories(pfnLimit, device.nrShadowTables(pfnLimit), options.random ?? Math.random);
    const written = (gfn: number) => this.directories.dropCode(gfn);
    this.access = new GuestAccess(mm, engine.i32, base, pfnLimit, this.fate, written);
    this.mmu = new GuestMmu(mm, this.directories, this.access, this.fate, this.invalidate, deviceLimit);
    this.hart = this.createHart(device);
    this.directories.hart = this.hart;
    this.data = new LguestData(this.access);
    this.traps = new Traps(this);
    this.interrupts = new Interrupts(this);
    this.hypercalls = new Hypercalls(this);
    this.exceptions = new Exceptions(this);
    this.held = new HeldPages(mm);
    this.powerOn(init);
  }

  private createHart(device: LguestDevice): Hart {
    try {
      const now = () => this.clock.ticks();
      return device.engine.createHart({ hartId: 0, mmu: this.mmu, now, deprivileged: true });
    } catch (error) {
      this.host.arenaFree(this.wordsAddr, INVALIDATE_SEQ_WORDS * 4);
      throw error;
    }
  }

  /** See abi.ts. The hart's own satp says no more than that it translates. */
  private powerOn({ start, pgdir }: LguestInit): void {
    const { hart, directories } = this;
    hart.csr.write(CSR.satp, 0, SATP_MODE_SV39 << 28);
    hart.csr.write(CSR.sstatus, SSTATUS_SUM | SSTATUS_FS, 0);
    hart.csr.write(CSR.scounteren, SCOUNTEREN_ALL, 0);
    hart.setMode(MODE_SUPERVISOR);
    hart.pc = BigInt.asUintN(64, BigInt(start));
    directories.roots[directories.current] = pgdir ?? LINEAR_ROOT;
  }

  /** Runs the guest until `turnEndsMs` by the environment's clock, or until what it answers: one round at least, or a slow host would never come to it. */
  step(turnEndsMs: number): number {
    for (;;) {
      const next = this.round();
      if (this.held.length > 0 && this.hasUsed(next)) this.held.releaseAll();
      if (next !== STEP_ON) return next;
      if (this.nowMs() > turnEndsMs) return STEP_TURN;
    }
  }

  /** Whether the pages that were waited for have been used, or will not be. */
  private hasUsed(next: number): boolean {
    if (next === STEP_WAIT) return false;
    return (next !== STEP_ON && next !== STEP_TURN) || this.hart.instret !== this.waitingAt;
  }

  private round(): number {
    const served = this.fate.death === undefined ? this.serve() : LG_DEAD;
    if (served === LG_WAIT) return this.waits();
    if (served === LG_DEAD) return STEP_DEAD;
    if (this.hypercalls.notification !== undefined || this.exceptions.device !== undefined) return STEP_PENDING;
    return this.interrupts.halted ? STEP_HALT : this.enter();
  }

  /** What is to be done for the guest before it goes on. LG_OK, LG_WAIT or LG_DEAD. */
  private serve(): number {
    const { hypercalls, exceptions, interrupts } = this;
    if (hypercalls.isWaiting) {
      const done = hypercalls.run();
      // An interrupt now would come before the ecall is done.
      if (done !== LG_OK || hypercalls.isWaiting) return done;
    }
    if (exceptions.isWaiting) {
      const done = exceptions.deliver();
      if (done !== LG_OK || exceptions.device !== undefined) return done;
      interrupts.halted = false;
    }
    const delivered = interrupts.deliver();
    return delivered === NO_INTERRUPT ? LG_OK : delivered;
  }

  private waits(): number {
    this.waitingAt = this.hart.instret;
    return STEP_WAIT;
  }

  private enter(): number {
    const dueMs = this.interrupts.msUntilDue();
    const slice = dueMs < 1 ? Math.max(SHORTEST_SLICE, Math.floor(dueMs * SLICE_INSTRUCTIONS)) : SLICE_INSTRUCTIONS;
    switch (this.hart.run(slice)) {
      case HART_EXIT_ECALL:
        this.hypercalls.begin();
        return STEP_ON;
      case HART_EXIT_TRAP:
        this.exceptions.take();
        return STEP_ON;
      case HART_EXIT_WAIT:
        return this.fate.death === undefined ? this.waits() : STEP_DEAD;
      case HART_EXIT_REQUEST:
        return STEP_TURN;
      default:
        return STEP_ON;
    }
  }

  /** What the launcher must act on, once. */
  takePending(): LguestPending {
    const pending = this.exceptions.device ?? { trap: LGUEST_TRAP_ENTRY, addr: this.hypercalls.notification!, insn: 0 };
    if (this.exceptions.device === undefined) this.hypercalls.notification = undefined;
    this.exceptions.device = undefined;
    return pending;
  }

  /** After its subscription has ended. */
  free(): void {
    this.held.releaseAll();
    this.hart.destroy();
    this.host.arenaFree(this.wordsAddr, INVALIDATE_SEQ_WORDS * 4);
  }
}
