import { KernelError } from '../base/index.js';
import { createRemote, type HeldPages, type RemoteArea } from '../mm/index.js';
import { HART_EXIT_REQUEST, type HartExit, RiscvEngine } from '../riscv/index.js';
import type { VcpuThreadHandle, VcpuThreadInit } from './environment.js';
import { frameTagsOf } from './framecheck.js';
import type { VcpuCore } from './vcpucore.js';
import { VcpuMail } from './vcpumail.js';
import { TURN_END, TURN_OWNER, TURN_THREAD, type VcpuState } from './vcpustate.js';
import type { Vm } from './vm.js';

/**
 * The thread of a vCPU, as the mm thread sees it (vcpuworker.ts is what runs there). They take turns: the thread runs the guest until something
 * needs the mm thread, leaves word of it in the mail, and sleeps until it has been handled.
 *
 *   mm thread                              vCPU's thread
 *   enter: turn = THREAD; wakes it         runs the guest; TLB misses, faults on present pages, SBI calls between harts: by itself
 *                                          exit into the mail; turn = OWNER; posts
 *   exit out of the mail; handled          sleeps
 *
 * The thread may be killed or die at any instant. It owns nothing that the host needs: its vCPU's words, and with others of the same VM the VM's tables
 * and their lock, which all go with the guest; frames that it was given come back by `RemoteArea.recover` (N25).
 */

/** How long a thread may take to come out when it is asked, before it is killed. */
const END_MS = 1000;
/** And one whose VM is lost. */
const LOST_MS = 100;
/** Frames that it may have in hand, on a host that has 16 times as many. WHY: first touches cost 1980 ns a page of both threads' time, with 64 of them 2240. */
const NR_FRAMES = 256;
/** Pages that were held for an instruction are looked after so often. */
const RELEASE_MS = 4;

export class VcpuThread {
  nrMinor = 0;
  nrRetries = 0;
  waitHva = 0;
  waitFlags = 0;
  waitGpa = 0;
  firstUserMs: number | undefined;
  private readonly vm: Vm;
  private readonly core: VcpuCore;
  private readonly state: VcpuState;
  private readonly mail: VcpuMail;
  private readonly recordsBytes: number;
  private readonly recordsAddr: number;
  private readonly area: RemoteArea;
  private held: HeldPages | undefined;
  private isLooking = false;
  private handle: VcpuThreadHandle | undefined;
  private gone: Promise<void> | undefined;
  private onGone: (() => void) | undefined;
  private ready: Promise<void> | undefined;
  private onReady: (() => void) | undefined;
  private exited: ((exit: HartExit) => void) | undefined;

  /** Throws KernelError ENOMEM. The thread begins with the first `enter`. */
  constructor(vm: Vm, core: VcpuCore) {
    this.vm = vm;
    this.core = core;
    this.state = core.state;
    this.mail = new VcpuMail(vm.host.memory, vm.tables.mailAddr(core.id));
    this.recordsBytes = RiscvEngine.bytesOf(vm.state.nrThreadDecodedPages, vm.host.memory.buffer.byteLength);
    this.recordsAddr = vm.host.arenaAlloc(this.recordsBytes, 64);
    this.area = createRemote(vm.mm, { nrFrames: NR_FRAMES });
  }

  /** Starts the thread, if that was not done; resolves when it is ready to run the guest, or has died. */
  begin(): Promise<void> {
    if (this.handle === undefined) this.start();
    return this.ready!;
  }

  /** Lets the thread run; why it came out. HART_EXIT_REQUEST also when it has died: the VM says so then. */
  enter(): Promise<HartExit> {
    if (this.handle === undefined) this.start();
    // Not at once: the event of its end would never come beside a vCPU that is entered again and again.
    if (this.state.killed) return this.gone!.then(() => HART_EXIT_REQUEST);
    this.area.refill();
    return new Promise((resolve) => {
      this.exited = resolve;
      this.state.giveTurn(TURN_THREAD);
    });
  }

  private start(): void {
    this.gone = new Promise((resolve) => {
      this.onGone = resolve;
    });
    this.ready = new Promise((resolve) => {
      this.onReady = resolve;
    });
    this.state.giveTurn(TURN_OWNER);
    this.handle = this.vm.env.startVcpuThread!(
      this.init(),
      () => this.posted(),
      (reason) => this.died(reason),
    );
  }

  private init(): VcpuThreadInit {
    const { vm, core } = this;
    return {
      memory: vm.host.memory,
      interpreter: vm.engine.interpreter,
      id: core.id,
      tables: vm.tables.descriptor(),
      remote: this.area.descriptor,
      recordsAddr: this.recordsAddr,
      nrDecodedPages: vm.state.nrThreadDecodedPages,
      startMs: vm.startMs,
      clockAddr: vm.clock.address,
      ...(vm.frameCheck && { frameTags: frameTagsOf(vm.host.frames) }),
    };
  }

  /** The thread is ready for the first time, or has come out, and it is our turn. */
  private posted(): void {
    this.onReady!();
    const resolve = this.exited;
    if (resolve === undefined || this.state.turn !== TURN_OWNER) return;
    this.exited = undefined;
    this.releaseRetired();
    this.readMail();
    resolve(this.mail.exit);
  }

  private readMail(): void {
    const { mail, core, vm } = this;
    const { hart } = core;
    hart.instret = mail.instret;
    hart.mmioGpa = mail.mmioGpa;
    hart.mmioLen = mail.mmioLen;
    hart.mmioIsWrite = mail.mmioIsWrite;
    hart.mmioValue = mail.mmioValue;
    this.waitHva = mail.waitHva;
    this.waitFlags = mail.waitFlags;
    this.waitGpa = mail.waitGpa;
    vm.host.vmstat.retries += mail.retries - this.nrRetries;
    this.nrMinor = mail.minor;
    this.nrRetries = mail.retries;
    if (mail.firstUserMs !== 0) this.firstUserMs = mail.firstUserMs;
  }

  answerMmio(value: bigint): void {
    this.mail.answerMmio(value);
  }

  /** The pages stay held until the thread says that the instruction has retired: it is looked for with each exit, and by a timer. */
  releaseWhenRetired(held: HeldPages): void {
    this.mail.holds = true;
    this.held = held;
    this.lookSoon();
  }

  private lookSoon(): void {
    if (this.isLooking) return;
    this.isLooking = true;
    this.vm.env.setTimer(() => {
      this.isLooking = false;
      this.releaseRetired();
      if (this.held!.length > 0) this.lookSoon();
    }, RELEASE_MS);
  }

  private releaseRetired(): void {
    if (this.held !== undefined && (this.state.killed || this.state.takeRetired())) this.held.releaseAll();
  }

  private died(reason: string): void {
    this.state.kill();
    this.area.recover();
    this.onReady!();
    this.onGone!();
    if (this.state.turn !== TURN_END) this.vm.threadDied(`vCPU ${this.core.id}: its thread has died: ${reason}`);
    this.exited?.(HART_EXIT_REQUEST);
    this.exited = undefined;
  }

  /** Ends it, as it comes out of the guest; kills it if it does not. */
  async end(): Promise<void> {
    if (this.handle !== undefined) {
      const cancel = this.vm.env.setTimer(() => void this.kill(), END_MS);
      if (this.exited === undefined) this.state.giveTurn(TURN_END);
      else await this.comeOut();
      await this.gone;
      cancel();
    }
    this.area.destroy();
    this.vm.host.arenaFree(this.recordsAddr, this.recordsBytes);
  }

  /** It was asked to come out; then it is not let in again. */
  private async comeOut(): Promise<void> {
    const resolve = this.exited!;
    await new Promise<void>((done) => {
      this.exited = (exit) => {
        resolve(exit);
        done();
      };
    });
    if (!this.state.killed) this.state.giveTurn(TURN_END);
  }

  /**
   * Its VM is lost, and it was asked to come out. It cannot where it waits for the lock that another one died with (N25): then it is killed too, and
   * `enter` comes back.
   */
  endLost(): void {
    if (this.handle === undefined || this.exited === undefined || this.state.killed) return;
    const cancel = this.vm.env.setTimer(() => {
      if (this.exited !== undefined && !this.state.killed) void this.kill();
    }, LOST_MS);
    void this.gone!.then(cancel);
  }

  /** Kills it at whatever instant; resolves when it has stopped. */
  async kill(): Promise<void> {
    if (this.handle === undefined) throw new KernelError('EINVAL', 'kill', 'the thread has not begun');
    this.state.kill();
    await this.handle.terminate();
    await this.gone;
  }
}
