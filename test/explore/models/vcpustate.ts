import { type Mutant, model } from 'unpin/explore';
import { Words } from 'unpin/mm';
import { ThreadSbi } from '../../../src/kvm/threadsbi.js';
import { VcpuCore } from '../../../src/kvm/vcpucore.js';
import { REQ_TLB_FLUSH, VCPU_STATE_WORDS, VcpuState } from '../../../src/kvm/vcpustate.js';
import { VcpuWorker } from '../../../src/kvm/vcpuworker.js';
import type { VmTables } from '../../../src/kvm/vmtables.js';
import { HART_EXIT_BUDGET, type HartExit, IRQ_S_SOFT } from '../../../src/riscv/index.js';
import * as L from '../../../src/riscv/layout.js';

/**
 * How kvm reaches a vCPU in its thread (N24, M28): shootdown beside entering and leaving the guest, several who ask at once, fences between vCPUs, and
 * the wake-up of one that is halted. `VcpuState`, `VcpuCore.enter` and `ThreadSbi` are the production code; the hart is a few accesses to a page by a
 * TLB that its own thread alone touches.
 */

const CORE = 'kvm/vcpucore.ts';
const STATE = 'kvm/vcpustate.ts';
/** Byte addresses in the shared memory: the vCPUs' words, their harts, and those of the model. */
const STATES = 64;
const HARTS = 8192;
const HART_BYTES = 16384;
const PAGES = 1024;

/** Words of a page: whether the shadow table maps it, and whether its frame is somebody else's by now. */
const MAPPED = 0;
const FREED = 1;

/** What stands for a hart: it looks its page up, if its TLB has it not, and touches it, until it is asked to come out. */
class ModelHart {
  readonly page: number;
  nrTurns: number;
  private readonly machine: Machine;
  private inTlb = false;

  constructor(machine: Machine, page: number, nrTurns: number) {
    this.machine = machine;
    this.page = page;
    this.nrTurns = nrTurns;
  }

  /** The guest, for a slice. */
  run(): HartExit {
    const { machine, page } = this;
    for (let k = 0; k < this.nrTurns; k++) {
      if (!this.inTlb && machine.pages.load(2 * page + MAPPED) !== 0) this.inTlb = true;
      if (this.inTlb && machine.pages.load(2 * page + FREED) !== 0)
        machine.wrong = `N24: the guest reaches page ${page}, which is somebody else's by now`;
    }
    return HART_EXIT_BUDGET;
  }

  flushTlb(): void {
    this.inTlb = false;
  }
}

/** vCPUs with a page each, which are the shared words of the model. */
class Machine {
  readonly memory = { buffer: new SharedArrayBuffer(65536) };
  readonly pages = new Words(this.memory, PAGES, 8, {
    word: (i) => `page ${i >> 1} ${(i & 1) === MAPPED ? 'mapped' : 'freed'}`,
  });
  readonly states: VcpuState[] = [];
  readonly cores: VcpuCore[] = [];
  wrong: string | undefined;

  /** `pages`: the page that each vCPU uses. `nrSpins`: as of VcpuState. */
  constructor(pages: readonly number[], nrTurns = 2, nrSpins = 2) {
    pages.forEach((page, id) => {
      const state = new VcpuState(this.memory, STATES + id * VCPU_STATE_WORDS * 4, `vcpu ${id}`, nrSpins);
      state.hartBase = HARTS + id * HART_BYTES;
      this.states.push(state);
      this.cores.push(modelCore(id, state, new ModelHart(this, page, nrTurns)));
      this.pages.writeOnce(2 * page + MAPPED, 1);
    });
  }

  /** As kvm's notifier: the shadow entry goes, the vCPUs flush, the frame is free. */
  takeAway(page: number, vcpus: readonly number[]): void {
    this.pages.store(2 * page + MAPPED, 0);
    for (const id of vcpus) this.states[id]!.request(REQ_TLB_FLUSH);
    for (const id of vcpus) this.states[id]!.awaitServed(REQ_TLB_FLUSH);
    this.pages.store(2 * page + FREED, 1);
  }
}

/** A VcpuCore around the model's hart: what its constructor would make of wasm is replaced, its methods are not. */
function modelCore(id: number, state: VcpuState, hart: ModelHart): VcpuCore {
  const mmu = { flushTlb: () => hart.flushTlb(), forgetRoot: () => {}, sfenceVma: () => {} };
  const parts = { id, state, hart, mmu, timer: { update: () => {} }, engine: { doubtCode: () => {} } };
  return Object.assign(Object.create(VcpuCore.prototype) as VcpuCore, parts);
}

const wrong = (machine: Machine) => machine.wrong;

const ENTER =
  'this.words.store(MODE, IN_GUEST_MODE); if ((this.words.load(REQUESTS) & SERVED_OUTSIDE) === 0) return true;';

const NO_WAIT: Mutant = {
  name: 'nobody waits until the request is served',
  file: STATE,
  find: 'if (!this.mustAwait(bits)) return; hartRequest',
  replace: 'if (bits !== 0) return; hartRequest',
  fails: /N24/,
};
const protocol: readonly Mutant[] = [
  {
    name: 'M28: the vCPU looks at its requests, and says only then that it goes in',
    file: STATE,
    find: ENTER,
    replace:
      'if ((this.words.load(REQUESTS) & SERVED_OUTSIDE) === 0) { this.words.store(MODE, IN_GUEST_MODE); return true; }',
    fails: /N24/,
  },
  {
    name: 'the vCPU looks at no requests after it said that it goes in',
    file: STATE,
    find: ENTER,
    replace: 'this.words.store(MODE, IN_GUEST_MODE); if (this.words.length > 0) return true;',
    fails: /N24/,
  },
  {
    name: 'M28: who asks looks at the mode first, and asks then',
    file: 'models/vcpustate.ts',
    preemptions: 3,
    find: 'for (const id of vcpus) this.states[id]!.request(REQ_TLB_FLUSH); for (const id of vcpus) this.states[id]!.awaitServed(REQ_TLB_FLUSH);',
    replace:
      'const inside = vcpus.filter((id) => this.states[id]!.inGuest); for (const id of vcpus) this.states[id]!.request(REQ_TLB_FLUSH); for (const id of inside) this.states[id]!.awaitServed(REQ_TLB_FLUSH);',
    fails: /N24/,
  },
  {
    name: 'the vCPU takes the request and does not flush',
    file: CORE,
    find: 'this.mmu.flushTlb();',
    replace: '',
    fails: /N24/,
  },
  NO_WAIT,
];

const enterTwice = ({ cores }: Machine, id = 0): void => {
  cores[id]!.enter();
  cores[id]!.enter();
};

export const shootdown = model({
  name: 'kvm: shootdown beside entering and leaving the guest',
  setup: () => new Machine([0]),
  invariant: wrong,
  mutants: protocol,
  actors: { vcpu: enterTwice, mm: (machine) => machine.takeAway(0, [0]) },
});

export const shootdownAsleep = model({
  name: 'kvm: shootdown whose requester sleeps',
  setup: () => new Machine([0], 2, 0),
  invariant: wrong,
  mutants: [
    protocol[0]!,
    {
      name: 'who leaves the guest wakes nobody',
      file: STATE,
      find: 'if (this.words.load(NR_WAITERS) !== 0) this.words.notify(ACKS);',
      replace: '',
      fails: /^(lost wake-up|deadlock)/,
    },
    {
      name: 'who leaves the guest looks who sleeps before it counts',
      file: STATE,
      preemptions: 3,
      find: 'this.words.fetchAdd(ACKS, 1); if (this.words.load(NR_WAITERS) !== 0) this.words.notify(ACKS);',
      replace: 'if (this.words.load(NR_WAITERS) !== 0) this.words.notify(ACKS); this.words.fetchAdd(ACKS, 1);',
      fails: /^(lost wake-up|deadlock)/,
    },
    {
      name: 'who asks looks at the count after it looked at the mode',
      file: STATE,
      find: 'const seen = this.words.load(ACKS); if (!this.mustAwait(bits)) return;',
      replace: 'if (!this.mustAwait(bits)) return; const seen = this.words.load(ACKS);',
      fails: /^(lost wake-up|deadlock)/,
    },
  ],
  actors: { vcpu: enterTwice, mm: (machine) => machine.takeAway(0, [0]) },
});

export const twoWhoAsk = model({
  name: 'kvm: two who ask one vCPU at once',
  setup: () => new Machine([0], 2, 0),
  invariant: wrong,
  mutants: [NO_WAIT],
  actors: {
    vcpu: ({ cores }) => void cores[0]!.enter(),
    mm: (machine) => machine.takeAway(0, [0]),
    other({ states }) {
      states[0]!.request(REQ_TLB_FLUSH);
      states[0]!.awaitServed(REQ_TLB_FLUSH);
    },
  },
});

/** The guest of `id` unmaps the page of the other, and fences its hart by the SBI: then it uses the frame for something else. */
function fenceOther(machine: Machine, id: number): void {
  const { cores, states, pages } = machine;
  const other = 1 - id;
  const sbi = new ThreadSbi(cores[id]!, { vcpus: states } as unknown as VmTables);
  cores[id]!.enter();
  pages.store(2 * other + MAPPED, 0);
  sbi.remoteSfenceVma([other], 0n, undefined);
  pages.store(2 * other + FREED, 1);
}

export const fences = model({
  name: 'kvm: two vCPUs that fence each other',
  setup: () => new Machine([0, 1], 1, 0),
  invariant: wrong,
  mutants: [
    {
      name: 'who comes out of the guest does not say so, and waits for the other',
      file: CORE,
      find: 'this.state.leaveGuest();',
      replace: '',
      fails: /^(lost wake-up|deadlock|livelock)/,
    },
    {
      name: 'a fence waits for nobody',
      file: 'kvm/threadsbi.ts',
      find: 'for (const id of hartIds) if (id !== this.core.id) this.tables.vcpus[id]!.awaitServed(bits);',
      replace: '',
      preemptions: 3,
      fails: /N24/,
    },
  ],
  actors: { one: (machine) => fenceOther(machine, 0), two: (machine) => fenceOther(machine, 1) },
});

/** A vCPU that waits for an interrupt as its thread does. */
function waitForInterrupt({ cores, memory }: Machine): void {
  const i32 = new Int32Array(memory.buffer);
  const sip = (HARTS + L.CSR_SIP) >>> 2;
  const hart = { interruptPending: () => Atomics.load(i32, sip) !== 0 };
  const core = { state: cores[0]!.state, hart, timer: { msUntilDue: () => Number.POSITIVE_INFINITY } };
  const clock = { leave: () => {}, enter: () => {} };
  const worker = Object.assign(Object.create(VcpuWorker.prototype), { core, clock }) as { halt(): void };
  while (!hart.interruptPending()) worker.halt();
}

export const halted = model({
  name: 'kvm: a halted vCPU and its interrupt',
  setup: () => new Machine([0]),
  mutants: [
    {
      name: 'it looks for interrupts, and prepares to sleep only then',
      edits: [
        { file: 'kvm/vcpuworker.ts', find: 'const prepared = state.prepareHalt();', replace: '' },
        {
          file: 'kvm/vcpuworker.ts',
          find: 'state.halt(prepared, sleepMs);',
          replace: 'state.halt(state.prepareHalt(), sleepMs);',
        },
      ],
      fails: /^(lost wake-up|deadlock)/,
    },
    {
      name: 'a kick counts nothing',
      file: STATE,
      find: 'this.words.fetchAdd(KICKS, 1); this.words.notify(KICKS);',
      replace: 'this.words.notify(KICKS);',
      fails: /^(lost wake-up|deadlock)/,
    },
    {
      name: 'a kick wakes before it counts',
      file: STATE,
      find: 'this.words.fetchAdd(KICKS, 1); this.words.notify(KICKS);',
      replace: 'this.words.notify(KICKS); this.words.fetchAdd(KICKS, 1);',
      fails: /^(lost wake-up|deadlock)/,
    },
    {
      name: 'the kick comes before the interrupt',
      file: STATE,
      find: 'hartSetInterruptPending(this.i32, this.hartBase, cause, on); if (on) this.kick();',
      replace: 'if (on) this.kick(); hartSetInterruptPending(this.i32, this.hartBase, cause, on);',
      fails: /^(lost wake-up|deadlock)/,
    },
  ],
  actors: { vcpu: waitForInterrupt, other: ({ states }) => states[0]!.setInterrupt(IRQ_S_SOFT, true) },
});
