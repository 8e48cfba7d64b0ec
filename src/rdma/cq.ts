import { KernelError } from '../base/index.js';
import type { ContextImpl } from './context.js';
import { CQE_WORDS, CqRing, NOTIFY_ANY, NOTIFY_SOLICITED, ringBytes, ringSlots } from './nic/rings.js';
import type { CompChannel, CompletionQueue, WorkCompletion } from './verbs.js';

/** Completion queues and their channels. A queue is a ring that the NIC fills; what wakes who waits is a message of the NIC, to a queue that was armed. */

export const MAX_CQE = 2 ** 20;

export class CompChannelImpl implements CompChannel {
  nrCqs = 0;
  private readonly events: CompletionQueue[] = [];
  private waiting: { resolve: (cq: CompletionQueue) => void; reject: (error: Error) => void }[] = [];
  private ended = false;

  notify(cq: CompletionQueue): void {
    const first = this.waiting.shift();
    if (first === undefined) this.events.push(cq);
    else first.resolve(cq);
  }

  /** A queue that is gone has no events. */
  forget(cq: CompletionQueue): void {
    const left = this.events.filter((event) => event !== cq);
    this.events.splice(0, this.events.length, ...left);
    this.nrCqs--;
  }

  get isDestroyed(): boolean {
    return this.ended;
  }

  getCqEvent(): Promise<CompletionQueue> {
    const event = this.events.shift();
    if (event !== undefined) return Promise.resolve(event);
    if (this.ended) return Promise.reject(destroyed());
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  destroyCompChannel(): void {
    if (this.nrCqs > 0) throw new KernelError('EBUSY', 'destroyCompChannel', `${this.nrCqs} completion queues use it`);
    this.end();
  }

  end(): void {
    this.ended = true;
    for (const { reject } of this.waiting.splice(0)) reject(destroyed());
  }
}

function destroyed(): KernelError {
  return new KernelError('EBADF', 'getCqEvent', 'the channel was destroyed');
}

export class CqImpl implements CompletionQueue {
  readonly context: ContextImpl;
  readonly channel: CompChannelImpl | undefined;
  readonly cqContext: unknown;
  readonly cqe: number;
  readonly address: number;
  /** Queue pairs that the NIC may still complete here, and those that the user has not destroyed. */
  nrNicUsers = 0;
  nrUsers = 0;
  private readonly ring: CqRing;
  private readonly lenBytes: number;
  private destroyed = false;
  /** Who waits in the iterator. */
  private wake: (() => void) | undefined;

  constructor(context: ContextImpl, cqe: number, channel: CompChannelImpl | undefined, cqContext: unknown) {
    if (!Number.isInteger(cqe) || cqe < 1 || cqe > MAX_CQE)
      throw new KernelError('EINVAL', 'createCq', `cqe ${cqe} must be from 1 to ${MAX_CQE}`);
    if (channel?.isDestroyed) throw new KernelError('EINVAL', 'createCq', 'the channel was destroyed');
    this.context = context;
    this.channel = channel;
    this.cqContext = cqContext;
    this.cqe = ringSlots(cqe);
    this.lenBytes = ringBytes(cqe, CQE_WORDS);
    this.address = context.device.allocZeroed(this.lenBytes);
    this.ring = new CqRing(context.device.words, this.address).init(cqe, CQE_WORDS);
    if (channel !== undefined) channel.nrCqs++;
  }

  pollCq(numEntries: number): WorkCompletion[] {
    const found: WorkCompletion[] = [];
    while (found.length < numEntries) {
      const wc = this.poll();
      if (wc === undefined) break;
      found.push(wc);
    }
    return found;
  }

  private poll(): WorkCompletion | undefined {
    this.refuseDestroyed('pollCq');
    const wc = this.ring.poll();
    if (wc === undefined && this.ring.overrun())
      throw new KernelError('EIO', 'pollCq', `completions are lost: more than ${this.cqe} were not polled`);
    return wc;
  }

  refuseDestroyed(syscall: string): void {
    if (this.destroyed) throw new KernelError('EINVAL', syscall, 'the completion queue was destroyed');
  }

  reqNotifyCq(solicitedOnly = false): void {
    this.refuseDestroyed('reqNotifyCq');
    this.ring.arm(solicitedOnly ? NOTIFY_SOLICITED : NOTIFY_ANY);
  }

  ackCqEvents(_n: number): void {}

  /** The NIC says that there is something, once for each arming. */
  notified(): void {
    const { wake } = this;
    this.wake = undefined;
    if (wake !== undefined) wake();
    else this.channel?.notify(this);
  }

  [Symbol.asyncIterator](): AsyncIterator<WorkCompletion, void> {
    return { next: () => this.nextCompletion(), return: async () => ({ done: true, value: undefined }) };
  }

  private async nextCompletion(): Promise<IteratorResult<WorkCompletion, void>> {
    while (!this.destroyed) {
      const value = this.poll() ?? this.armAndPoll();
      if (value !== undefined) return { done: false, value };
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    return { done: true, value: undefined };
  }

  /** Armed first, looked at then: what comes in between is found, what comes later is told. */
  private armAndPoll(): WorkCompletion | undefined {
    this.reqNotifyCq();
    return this.poll();
  }

  destroyCq(): void {
    if (this.destroyed) return;
    if (this.nrUsers > 0) throw new KernelError('EBUSY', 'destroyCq', `${this.nrUsers} queue pairs use it`);
    this.destroyed = true;
    this.context.forgetCq(this);
    this.channel?.forget(this);
    this.wake?.();
    this.freeIfUnused();
  }

  freeIfUnused(): void {
    if (this.destroyed && this.nrNicUsers === 0) this.context.device.host.arenaFree(this.address, this.lenBytes);
  }
}
