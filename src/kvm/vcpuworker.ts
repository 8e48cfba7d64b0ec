import { FAULT_FLAG_WRITE, RemoteMm } from '../mm/index.js';
import {
  HART_EXIT_BUDGET,
  HART_EXIT_ECALL,
  HART_EXIT_REQUEST,
  HART_EXIT_WFI,
  type HartExit,
  RiscvEngine,
} from '../riscv/index.js';
import { VmClock } from './clock.js';
import type { VcpuThreadInit } from './environment.js';
import { FrameCheck } from './framecheck.js';
import type { HostPages } from './hostpages.js';
import { ThreadSbi } from './threadsbi.js';
import { VcpuCore } from './vcpucore.js';
import { VcpuMail } from './vcpumail.js';
import { TURN_END, TURN_OWNER } from './vcpustate.js';
import { VmTables } from './vmtables.js';

/**
 * What runs in the thread of a vCPU: the other half of vcputhread.ts. It has no mm and no devices; what it cannot do from shared memory it leaves to
 * the mm thread, by coming out.
 *
 * Use: a worker calls `runVcpuThread` with what it was sent; the call returns when the vCPU is done for.
 */

/** @param nowMs the environment's clock, the same as on the mm thread. @param post makes the mm thread look. */
export function runVcpuThread(init: VcpuThreadInit, nowMs: () => number, post: () => void): void {
  new VcpuWorker(init, nowMs, post).run();
}

export class VcpuWorker {
  private readonly core: VcpuCore;
  private readonly mail: VcpuMail;
  private readonly clock: VmClock;
  private readonly sbi: ThreadSbi;
  private readonly post: () => void;

  constructor(init: VcpuThreadInit, nowMs: () => number, post: () => void) {
    const { memory, interpreter, id, recordsAddr, nrDecodedPages, frameTags } = init;
    const engine = new RiscvEngine({
      memory,
      interpreter,
      nrDecodedPages,
      alloc: () => recordsAddr,
      free: () => {},
      ...(frameTags && { tagsAddr: frameTags.generationAddr }),
    });
    const tables = VmTables.attach(memory, init.tables, (vpn) => this.core.mmu.flushVpn(vpn));
    const remote = new RemoteMm(memory, init.remote);
    const pages = remotePages(remote);
    const frameCheck = frameTags && new FrameCheck(memory, frameTags, (va, write) => remote.lookup(va, write));
    this.clock = new VmClock(memory, init.clockAddr, nowMs, init.startMs);
    const place = { tables, engine, pages, nowMs, clock: this.clock };
    this.core = new VcpuCore(id, { ...place, ...(frameCheck && { frameCheck }) });
    this.mail = new VcpuMail(memory, tables.mailAddr(id));
    this.sbi = new ThreadSbi(this.core, tables);
    this.post = post;
  }

  run(): void {
    const { core, mail } = this;
    this.post();
    while (core.state.awaitTurn() !== TURN_END) {
      this.resume();
      mail.exit = this.runUntilExit();
      this.writeMail();
      core.state.giveTurn(TURN_OWNER);
      this.post();
    }
  }

  /** What the mm thread has done for the last exit takes effect. */
  private resume(): void {
    const { core, mail } = this;
    const answer = mail.takeMmioAnswer();
    if (answer !== undefined) core.hart.completeMmioRead(answer);
  }

  private runUntilExit(): HartExit {
    const { core } = this;
    if (this.mail.holds) {
      const exit = this.runHeld();
      if (exit !== HART_EXIT_BUDGET && exit !== HART_EXIT_REQUEST) return exit;
    }
    for (;;) {
      if (core.state.takeExit()) return HART_EXIT_REQUEST;
      const exit = core.enter();
      if (!this.handled(exit)) return exit;
    }
  }

  /** The instruction that has waited, alone: then its pages need not be held any more (N26). */
  private runHeld(): HartExit {
    const { core, mail } = this;
    const { instret } = core.hart;
    const exit = core.enter(1);
    if (core.hart.instret === instret) return exit;
    mail.holds = false;
    core.state.retired();
    return exit;
  }

  private handled(exit: HartExit): boolean {
    switch (exit) {
      case HART_EXIT_BUDGET:
      case HART_EXIT_REQUEST:
        return true;
      case HART_EXIT_WFI:
        this.halt();
        return true;
      case HART_EXIT_ECALL:
        return this.sbi.ecall();
      default:
        return false;
    }
  }

  /** Sleeps until an interrupt is pending, the timer is due, or somebody asks for something. */
  private halt(): void {
    const { hart, state, timer } = this.core;
    const prepared = state.prepareHalt();
    const sleepMs = timer.msUntilDue();
    if (sleepMs <= 0 || hart.interruptPending()) return;
    this.clock.leave();
    state.halt(prepared, sleepMs);
    this.clock.enter();
  }

  private writeMail(): void {
    const { mail, core } = this;
    const { hart, mmu } = core;
    mail.instret = hart.instret;
    mail.setMmio(hart.mmioGpa, hart.mmioLen, hart.mmioIsWrite, hart.mmioValue);
    mail.setWait(mmu.waitHva, mmu.waitFlags, mmu.waitGpa);
    mail.setCounts(mmu.nrMinor, mmu.nrRetries);
    mail.firstUserMs = mmu.firstUserMs ?? 0;
  }
}

function remotePages(remote: RemoteMm): HostPages {
  return {
    tryGetPage: (va, flags) => remote.lookup(va, (flags & FAULT_FLAG_WRITE) !== 0),
    putPage: () => {},
    ptesAddr: remote.ptesAddr,
    peekTable: (vpn) => remote.peekTable(vpn),
    peekPte: (index) => remote.peekPte(index),
    mapZero: (va) => remote.mapZero(va),
  };
}
