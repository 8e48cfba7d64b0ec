import type { Hart, HartExit, RiscvEngine } from '../riscv/index.js';
import type { VmClock } from './clock.js';
import { CheckedMmu, type FrameCheck } from './framecheck.js';
import type { HostPages } from './hostpages.js';
import { KvmMmu } from './mmu.js';
import { VcpuTimer } from './timer.js';
import { REQ_FENCE_I, REQ_TLB_FLUSH, type VcpuState } from './vcpustate.js';
import type { VmTables } from './vmtables.js';

/**
 * The part of a vCPU that runs in its thread, whichever that is: a hart, its view of memory, its timer, and the way into the guest and
 * out of it.
 */

/** Instructions of a slice: about a millisecond. */
const SLICE_INSTRUCTIONS = 200_000;

export interface VcpuPlace {
  readonly tables: VmTables;
  readonly engine: RiscvEngine;
  readonly pages: HostPages;
  /** The environment's clock, the same in all threads. */
  readonly nowMs: () => number;
  readonly clock: VmClock;
  /** In test builds, for a vCPU that runs here. */
  readonly frameCheck?: FrameCheck;
}

export class VcpuCore {
  readonly id: number;
  readonly hart: Hart;
  readonly mmu: KvmMmu;
  readonly timer: VcpuTimer;
  readonly state: VcpuState;
  private readonly engine: RiscvEngine;
  private readonly checked: CheckedMmu | undefined;

  /** Makes a hart, or attaches to the one that the state has. */
  constructor(id: number, place: VcpuPlace) {
    const { tables, engine, pages, nowMs, clock, frameCheck } = place;
    this.id = id;
    this.engine = engine;
    this.state = tables.vcpus[id]!;
    if (frameCheck !== undefined) this.checked = new CheckedMmu(tables, engine.i32, pages, nowMs);
    this.mmu = this.checked ?? new KvmMmu(tables, engine.i32, pages, nowMs);
    const options = { hartId: id, mmu: this.mmu, now: () => clock.now() };
    const { hartBase } = this.state;
    this.hart = hartBase === 0 ? engine.createHart(options) : engine.attachHart(hartBase, options);
    this.mmu.hart = this.hart;
    if (frameCheck !== undefined) this.checked!.attach(this.hart, frameCheck);
    this.hart.refill.setGeneration(tables.shadow.pool.generationAddr);
    this.timer = new VcpuTimer(this.hart, clock);
    this.state.hartBase = this.hart.base;
  }

  /** Runs the guest for a slice, or until it comes out. Outside again when it returns. */
  enter(nrInstructions = SLICE_INSTRUCTIONS): HartExit {
    this.timer.update();
    do this.serve(this.state.takeRequests());
    while (!this.state.enterGuest());
    const exit = this.hart.run(nrInstructions);
    if (this.checked !== undefined) this.checked.checkTlb();
    this.state.leaveGuest();
    return exit;
  }

  /** Does what was asked for, outside the guest. Pairs with VcpuState.request; What else is asked for is the caller's. */
  serve(requests: number): void {
    if (requests === 0) return;
    if ((requests & REQ_TLB_FLUSH) !== 0) {
      this.mmu.flushTlb();
      this.mmu.forgetRoot();
    }
    if ((requests & (REQ_TLB_FLUSH | REQ_FENCE_I)) !== 0) this.engine.doubtCode();
  }
}
