import { cpuRelax, KernelError, Words } from '../base/index.js';
import { hartRequest, hartSetInterruptPending } from '../riscv/index.js';

/**
 * The words of a vCPU that other threads reach: whether it is in the guest, what is asked of it, how it is woken (Linux:
 * vcpu->mode, vcpu->requests, kvm_vcpu_kick).
 *
 *   vCPU's thread                          who asks
 *   mode = IN_GUEST                        requests |= flush
 *   requests? then out again, serve them   mode = IN_GUEST? then hart's request word = 1, wait
 *   runs, polls the request word
 *   mode = OUTSIDE; acknowledges           goes on
 *
 * Required outcome: when `awaitServed` returns, the vCPU has served the request, or is outside and serves it before it enters
 * the guest again; so nothing of what it did before in the guest goes on (N24). Either it sees the request, or who asks
 * sees it in the guest: both store first and load then, sequentially consistent (M28).
 *
 * A vCPU that is outside is never waited for, and uses no translation of its TLB. Nobody waits here with a lock that the
 * vCPU takes in the guest.
 */

export const OUTSIDE_GUEST_MODE = 0;
export const IN_GUEST_MODE = 1;

/** Flush the TLB, and doubt decoded code: frames may have been taken away. */
export const REQ_TLB_FLUSH = 1;
/** Somebody has executed `fence.i` for this hart. */
export const REQ_FENCE_I = 2;
/** Come out to the owner of the vCPU. */
export const REQ_EXIT = 4;
/** What a vCPU must have done before it enters the guest. */
const SERVED_OUTSIDE = REQ_TLB_FLUSH | REQ_FENCE_I;

const MODE = 0;
const REQUESTS = 1;
/** Counts kicks: what a halted vCPU sleeps on. */
const KICKS = 2;
/** Counts acknowledgements: what those who asked sleep on. */
const ACKS = 3;
/** How many sleep there. */
const NR_WAITERS = 4;
/** Whose turn it is: the thread's to run, or its owner's to handle an exit. */
const TURN = 5;
/** Address of the hart; 0 before there is one. */
const HART = 6;
/** Not 0: its thread was told to die, perhaps with a lock. */
const KILLED = 7;
/** Not 0: the instruction that pages were held for has retired (N26). */
const RETIRED = 8;
export const VCPU_STATE_WORDS = 16;

export const TURN_THREAD = 0;
export const TURN_OWNER = 1;
/** The thread ends. */
export const TURN_END = 2;

/** A vCPU that has not left the guest by then never will: it polls at every taken branch. */
const ACK_TIMEOUT_MS = 2000;
const LOOK_AGAIN_MS = 20;
/** WHY: an acknowledgement comes within a few microseconds, a sleep costs 20 or more. */
const SPINS = 2000;

export class VcpuState {
  private readonly i32: Int32Array;
  private readonly words: Words;
  private readonly nrSpins: number;

  /** `address` of VCPU_STATE_WORDS words, zero at first. `nrSpins`: looks before who waits for it sleeps. */
  constructor(memory: { buffer: SharedArrayBuffer }, address: number, label?: string, nrSpins = SPINS) {
    this.nrSpins = nrSpins;
    this.i32 = new Int32Array(memory.buffer);
    this.words = new Words(memory, address, VCPU_STATE_WORDS, label);
  }

  get hartBase(): number {
    return this.words.readOnce(HART);
  }

  set hartBase(address: number) {
    this.words.writeOnce(HART, address);
  }

  // By the vCPU's own thread.

  /** False: something is asked for, and the vCPU is still outside: `takeRequests` first. */
  enterGuest(): boolean {
    this.words.store(MODE, IN_GUEST_MODE);
    if ((this.words.load(REQUESTS) & SERVED_OUTSIDE) === 0) return true;
    this.leaveGuest();
    return false;
  }

  leaveGuest(): void {
    this.words.store(MODE, OUTSIDE_GUEST_MODE);
    this.words.fetchAdd(ACKS, 1);
    if (this.words.load(NR_WAITERS) !== 0) this.words.notify(ACKS);
  }

  /** What is asked for, which the caller serves before it enters the guest. */
  takeRequests(): number {
    return this.take(SERVED_OUTSIDE);
  }

  /** Whether it is to come out to its owner; true once. */
  takeExit(): boolean {
    return this.take(REQ_EXIT) !== 0;
  }

  private take(bits: number): number {
    return (this.words.load(REQUESTS) & bits) === 0 ? 0 : this.words.fetchAnd(REQUESTS, ~bits) & bits;
  }

  /** Before a halted vCPU looks whether there is something to do; pairs with `halt`. */
  prepareHalt(): number {
    return this.words.load(KICKS);
  }

  /** Sleeps until a kick that came after `prepareHalt`, or for `timeoutMs`. */
  halt(prepared: number, timeoutMs: number): void {
    if (this.words.load(REQUESTS) === 0) this.words.wait(KICKS, prepared, timeoutMs);
  }

  // By any thread.

  get inGuest(): boolean {
    return this.words.load(MODE) === IN_GUEST_MODE;
  }

  request(bits: number): void {
    this.words.fetchOr(REQUESTS, bits);
  }

  pending(bits: number): boolean {
    return (this.words.load(REQUESTS) & bits) !== 0;
  }

  /** Makes it look at its requests and interrupts, in the guest or asleep. */
  kick(): void {
    if (this.hartBase !== 0) hartRequest(this.i32, this.hartBase);
    this.words.fetchAdd(KICKS, 1);
    this.words.notify(KICKS);
  }

  setInterrupt(cause: number, on: boolean): void {
    if (this.hartBase === 0) return;
    hartSetInterruptPending(this.i32, this.hartBase, cause, on);
    if (on) this.kick();
  }

  /** Waits until what was requested is served, or the vCPU is outside. Throws KernelError ETIMEDOUT where it does neither: its thread is dead. */
  awaitServed(bits: number): void {
    if (!this.mustAwait(bits)) return;
    hartRequest(this.i32, this.hartBase);
    for (let spin = 0; spin < this.nrSpins; spin++) {
      if (!this.mustAwait(bits)) return;
      cpuRelax();
    }
    this.words.fetchAdd(NR_WAITERS, 1);
    try {
      this.sleepUntilServed(bits);
    } finally {
      this.words.fetchAdd(NR_WAITERS, -1);
    }
  }

  private mustAwait(bits: number): boolean {
    return this.pending(bits) && this.words.load(MODE) === IN_GUEST_MODE;
  }

  private sleepUntilServed(bits: number): void {
    for (let waitedMs = 0; waitedMs < ACK_TIMEOUT_MS; waitedMs += LOOK_AGAIN_MS) {
      const seen = this.words.load(ACKS);
      if (!this.mustAwait(bits)) return;
      if (this.killed) break;
      this.words.wait(ACKS, seen, LOOK_AGAIN_MS);
    }
    throw new KernelError('ETIMEDOUT', 'kick', `a vCPU has not left the guest within ${ACK_TIMEOUT_MS} ms`);
  }

  /** By the thread, when the instruction that waited has retired; and by its owner, once for each. */
  retired(): void {
    this.words.store(RETIRED, 1);
  }

  takeRetired(): boolean {
    return this.words.load(RETIRED) !== 0 && this.words.exchange(RETIRED, 0) !== 0;
  }

  // The thread and its owner take turns.

  get killed(): boolean {
    return this.words.load(KILLED) !== 0;
  }

  kill(): void {
    this.words.store(KILLED, 1);
  }

  get turn(): number {
    return this.words.load(TURN);
  }

  giveTurn(turn: number): void {
    this.words.store(TURN, turn);
    this.words.notify(TURN);
  }

  /** Sleeps while it is the owner's turn. */
  awaitTurn(): number {
    for (;;) {
      const turn = this.words.load(TURN);
      if (turn !== TURN_OWNER) return turn;
      this.words.wait(TURN, TURN_OWNER);
    }
  }
}
