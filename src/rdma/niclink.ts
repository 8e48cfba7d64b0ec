import type { DeviceImpl } from './device.js';
import type { NicThreadHandle, NicThreadInit } from './environment.js';
import type { FromNic, ToNic } from './nic/messages.js';
import { Nic } from './nic/nic.js';

/**
 * The link between a device and its NIC: messages in order, both ways. The NIC runs in a thread, or here: then a message is a deferred call, so that neither side is ever called from
 * inside the other.
 */

/** How long a thread may take to stop when it is asked, before it is killed. */
const END_MS = 2000;

export class NicLink {
  readonly threaded: boolean;
  private readonly device: DeviceImpl;
  private handle: NicThreadHandle | undefined;
  private nic: Nic | undefined;
  private readonly toNic: ToNic[] = [];
  private readonly fromNic: FromNic[] = [];
  private isDelivering = false;
  private stopped = false;
  private onStopped: () => void = () => {};
  private gone: Promise<void> = Promise.resolve();

  constructor(device: DeviceImpl, init: NicThreadInit, threaded: boolean) {
    this.device = device;
    this.threaded = threaded;
    if (threaded) this.startThread(init);
  }

  private startThread(init: NicThreadInit): void {
    const { env } = this.device;
    this.gone = new Promise((resolve) => {
      this.handle = env.startNicThread!(
        init,
        (message) => this.received(message as FromNic),
        (reason) => {
          this.stopped = true;
          resolve();
          this.device.died(`its thread has died: ${reason}`);
        },
      );
    });
  }

  /** With the first message: a device that nobody uses has none. */
  private nicHere(): Nic {
    const { device } = this;
    const { env } = device;
    return new Nic(device.init, {
      post: (message) => {
        this.fromNic.push(message);
        this.deliverSoon();
      },
      setTimer: (fn, ms) => env.setTimer(fn, ms),
      defer: (fn) => env.defer(fn),
      net: env.net!,
      pagesOf: (context) => device.contexts.get(context)?.pages,
    });
  }

  private received(message: FromNic): void {
    if (message.type === 'stopped') this.onStopped();
    else this.device.receive(message);
  }

  send(message: ToNic): void {
    if (this.stopped) return;
    if (this.handle !== undefined) this.handle.postMessage(message);
    else {
      this.toNic.push(message);
      this.deliverSoon();
    }
  }

  private deliverSoon(): void {
    if (this.isDelivering) return;
    this.isDelivering = true;
    this.device.env.defer(() => this.deliver());
  }

  private deliver(): void {
    this.isDelivering = false;
    this.nic ??= this.nicHere();
    for (const message of this.toNic.splice(0)) this.nic.handle(message);
    for (const message of this.fromNic.splice(0)) this.received(message);
  }

  /** Ends it; kills a thread that does not end. Resolves when it runs no more. */
  async stop(): Promise<void> {
    if (this.stopped) return;
    const stopped = new Promise<void>((resolve) => {
      this.onStopped = resolve;
    });
    this.send({ type: 'stop' });
    let cancel = (): void => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.device.env.setTimer(resolve, END_MS);
    });
    await Promise.race([stopped, late, this.handle === undefined ? late : this.gone]);
    cancel();
    this.device.dead ??= 'it is closed';
    this.stopped = true;
    if (this.handle === undefined) return;
    await this.handle.terminate();
    await this.gone;
    this.device.state.over();
  }

  /** Kills its thread at whatever instant; resolves when it has stopped. */
  async kill(): Promise<void> {
    await this.handle?.terminate();
    await this.gone;
  }
}
