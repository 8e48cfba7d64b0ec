import { ERRNO, type ErrnoName, KernelError } from '../base/index.js';
import type { CmAddr, CmEvent, CmId, ConnParam } from './cm.js';
import {
  RDMA_CM_EVENT_CONNECT_REQUEST,
  RDMA_CM_EVENT_DEVICE_REMOVAL,
  RDMA_CM_EVENT_DISCONNECTED,
  RDMA_CM_EVENT_ESTABLISHED,
} from './constants.js';
import type { ContextImpl } from './context.js';
import type { ConnWish, FromNic } from './nic/messages.js';
import type { Pd } from './pd.js';
import { MAX_RD_ATOM, type QpImpl } from './qp.js';
import type { ProtectionDomain, QpInitAttr, QueuePair } from './verbs.js';
import { MPA_PRIVATE_DATA_MAX } from './wire/index.js';

/**
 * Ids of the connection manager. One stands for a connection in the NIC, or for a listener; both are named by the same number.
 *
 *   idle -> bound -> listening                               idle -> resolved -> connecting -> up -> down
 *   a request: asked -> accepting -> up -> down; or rejected
 */
type State =
  | 'idle'
  | 'resolved'
  | 'connecting'
  | 'bound'
  | 'listening'
  | 'asked'
  | 'accepting'
  | 'up'
  | 'down'
  | 'gone';

const DEFAULT_DEPTH = 16;
const DEFAULT_BACKLOG = 16;
const MAX_BACKLOG = 1024;
const EMPTY = new Uint8Array(0);

const IWARP_PEER = 'it must be a peer that speaks iWARP';
/** Private data that are a line of ASCII are told to the user; others are for his program alone. */
const PRINTABLE = /^[ -~]+$/;
/** What would be right, for one who cannot connect. */
const RIGHT: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'it must be where a server listens',
  EHOSTUNREACH: 'it must be a host that can be reached from here',
  ECONNRESET: `${IWARP_PEER} and has room`,
  EPROTO: IWARP_PEER,
  ETIMEDOUT: IWARP_PEER,
};

interface Pending {
  resolve(message: FromNic | undefined): void;
  reject(error: Error): void;
}

/** Events of one id, for one who waits. */
class EventQueue implements AsyncIterable<CmEvent> {
  private readonly events: CmEvent[] = [];
  private wake: (() => void) | undefined;
  private ended = false;

  push(event: CmEvent): void {
    this.events.push(event);
    this.wake?.();
  }

  /** Gives back the ids of requests that nobody has taken. */
  end(): CmId[] {
    const requests = this.events.filter(({ listenId }) => listenId !== undefined);
    this.events.splice(0, this.events.length, ...this.events.filter((event) => !requests.includes(event)));
    this.ended = true;
    this.wake?.();
    return requests.map(({ id }) => id);
  }

  [Symbol.asyncIterator](): AsyncIterator<CmEvent, void> {
    return { next: () => this.nextEvent(), return: async () => ({ done: true, value: undefined }) };
  }

  private async nextEvent(): Promise<IteratorResult<CmEvent, void>> {
    for (;;) {
      const value = this.events.shift();
      if (value !== undefined) return { done: false, value };
      if (this.ended) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }
}

export class CmIdImpl implements CmId {
  qp: QpImpl | undefined;
  localAddr: Required<CmAddr> | undefined;
  peerAddr: Required<CmAddr> | undefined;
  readonly events = new EventQueue();
  readonly conn: number;
  private readonly context: ContextImpl;
  private state: State = 'idle';
  private addr: Required<CmAddr> | undefined;
  private pending: Pending | undefined;
  private onDown: (() => void)[] = [];

  constructor(context: ContextImpl, conn: number) {
    this.context = context;
    this.conn = conn;
  }

  private refuse(syscall: string, what: string): never {
    throw new KernelError('EINVAL', syscall, what);
  }

  private expect(syscall: string, ...states: State[]): void {
    this.context.device.refuseDead(syscall);
    if (!states.includes(this.state))
      this.refuse(syscall, `the id is ${this.state}; it must be ${states.join(' or ')}`);
  }

  private send(type: 'disconnect' | 'closeConn'): void {
    this.context.device.send({ type, conn: this.conn });
  }

  async resolveAddr(addr: CmAddr): Promise<void> {
    this.expect('resolveAddr', 'idle', 'resolved');
    if (!isPort(addr.port) || addr.port === 0) this.refuse('resolveAddr', `port ${addr.port} must be from 1 to 65535`);
    this.addr = { host: addr.host ?? '127.0.0.1', port: addr.port };
    this.state = 'resolved';
  }

  async bindAddr(addr: CmAddr): Promise<void> {
    this.expect('bindAddr', 'idle');
    if (!isPort(addr.port)) this.refuse('bindAddr', `port ${addr.port} must be from 0 to 65535`);
    this.addr = { host: addr.host ?? '', port: addr.port };
    this.state = 'bound';
  }

  createQp(pd: ProtectionDomain, attr: QpInitAttr): QueuePair {
    if (this.qp !== undefined && !this.qp.isDestroyed) this.refuse('createQp', 'the id has a queue pair');
    if (pd.context !== this.context) this.refuse('createQp', 'pd must be of the same context');
    this.qp = (pd as Pd).createQp(attr);
    return this.qp;
  }

  /** The queue pair that is to be connected. */
  private takeQp(syscall: string): QpImpl {
    const { qp } = this;
    if (qp === undefined || qp.isDestroyed) this.refuse(syscall, 'the id has no queue pair: createQp');
    if (qp!.connected) this.refuse(syscall, 'the queue pair has been connected before');
    qp!.connected = true;
    return qp!;
  }

  private wishOf(syscall: string, param: ConnParam): ConnWish {
    const { privateData = EMPTY, responderResources = DEFAULT_DEPTH, initiatorDepth = DEFAULT_DEPTH } = param;
    const { crc = true } = param;
    if (privateData.length > MPA_PRIVATE_DATA_MAX)
      this.refuse(syscall, `${privateData.length} bytes of private data must be at most ${MPA_PRIVATE_DATA_MAX}`);
    for (const depth of [responderResources, initiatorDepth])
      if (!Number.isInteger(depth) || depth < 0 || depth > MAX_RD_ATOM)
        this.refuse(syscall, `responderResources and initiatorDepth must be from 0 to ${MAX_RD_ATOM}, not ${depth}`);
    return { privateData: Uint8Array.from(privateData), ird: responderResources, ord: initiatorDepth, crc };
  }

  private await(): Promise<FromNic | undefined> {
    return new Promise((resolve, reject) => {
      this.pending = { resolve, reject };
    });
  }

  async connect(param: ConnParam = {}): Promise<CmEvent> {
    this.expect('connect', 'resolved');
    const wish = this.wishOf('connect', param);
    const qp = this.takeQp('connect');
    this.state = 'connecting';
    this.context.device.send({ type: 'connect', conn: this.conn, addr: this.addr!, qpNum: qp.qpNum, wish });
    const message = (await this.await()) as FromNic & { type: 'established' };
    return this.eventOf(RDMA_CM_EVENT_ESTABLISHED, message.wish);
  }

  async listen(backlog = DEFAULT_BACKLOG): Promise<void> {
    this.expect('listen', 'bound');
    if (!Number.isInteger(backlog) || backlog < 1 || backlog > MAX_BACKLOG)
      this.refuse('listen', `backlog ${backlog} must be from 1 to ${MAX_BACKLOG}`);
    this.state = 'listening';
    this.context.device.send({ type: 'listen', conn: this.conn, addr: this.addr!, backlog });
    await this.await();
  }

  async accept(param: ConnParam = {}): Promise<void> {
    if (this.state === 'down') throw new KernelError('ECONNRESET', 'accept', 'the peer has gone');
    this.expect('accept', 'asked');
    const wish = this.wishOf('accept', param);
    const qp = this.takeQp('accept');
    this.state = 'accepting';
    this.context.device.send({ type: 'accept', conn: this.conn, qpNum: qp.qpNum, wish });
    await this.await();
  }

  async reject(privateData: Uint8Array = EMPTY): Promise<void> {
    this.expect('reject', 'asked');
    const wish = this.wishOf('reject', { privateData });
    this.state = 'down';
    this.context.device.send({ type: 'reject', conn: this.conn, privateData: wish.privateData });
  }

  async disconnect(): Promise<void> {
    if (this.state === 'down' || this.state === 'gone') return;
    this.expect('disconnect', 'up');
    const down = new Promise<void>((resolve) => this.onDown.push(resolve));
    this.send('disconnect');
    await down;
  }

  destroyId(): void {
    if (this.state === 'gone') return;
    const { state } = this;
    this.goDown('gone');
    this.pending?.reject(new KernelError('ECONNABORTED', 'rdma_cm', 'the id was destroyed'));
    this.pending = undefined;
    // A peer that has asked gets an answer, as from Linux's iw_cm (destroy_cm_id).
    if (state === 'asked') this.context.device.send({ type: 'reject', conn: this.conn, privateData: EMPTY });
    else if (state !== 'idle' && state !== 'resolved' && state !== 'bound') this.send('closeConn');
    // Requests that nobody has seen go with their listener.
    for (const id of this.events.end()) id.destroyId();
    this.context.forgetId(this);
  }

  private goDown(state: State): void {
    this.state = state;
    for (const resolve of this.onDown.splice(0)) resolve();
  }

  private eventOf(event: CmEvent['event'], wish: ConnWish | undefined, more: Partial<CmEvent> = {}): CmEvent {
    return {
      event,
      id: this,
      privateData: wish?.privateData ?? EMPTY,
      responderResources: wish?.ird ?? 0,
      initiatorDepth: wish?.ord ?? 0,
      ...more,
    };
  }

  // What the NIC tells.

  /** A listener: somebody wants to connect. */
  requested(message: FromNic & { type: 'connectRequest' }): void {
    const id = this.context.addId(new CmIdImpl(this.context, message.conn));
    id.state = 'asked';
    id.localAddr = { ...message.localAddr };
    id.peerAddr = { ...message.peerAddr };
    this.events.push(id.eventOf(RDMA_CM_EVENT_CONNECT_REQUEST, message.wish, { listenId: this }));
  }

  receive(message: FromNic): void {
    switch (message.type) {
      case 'listening':
        this.localAddr = { ...message.localAddr };
        return this.settle(message);
      case 'established':
        this.state = 'up';
        this.localAddr = { ...message.localAddr };
        this.peerAddr = { ...message.peerAddr };
        this.qp!.ready();
        return this.settle(message);
      case 'connectFailed': {
        const reason = this.whereAndWhy(message);
        this.goDown('down');
        return this.fail(message.code, reason, message.privateData);
      }
      case 'disconnected': {
        this.goDown('down');
        const reason = message.reason === undefined ? {} : { reason: message.reason };
        this.events.push(this.eventOf(RDMA_CM_EVENT_DISCONNECTED, undefined, reason));
      }
    }
  }

  private settle(message: FromNic): void {
    const { pending } = this;
    this.pending = undefined;
    pending?.resolve(message);
  }

  /** A peer that rejects has its own reasons, and perhaps says them. */
  private whereAndWhy({ code, reason, privateData }: FromNic & { type: 'connectFailed' }): string {
    if (this.addr === undefined) return reason;
    const { host, port } = this.addr;
    const where = `${host === '' ? '' : `${host} `}port ${port}: ${reason}`;
    if (privateData !== undefined) return `${where}${saidIn(privateData)}`;
    const right = this.state === 'connecting' ? RIGHT[code] : undefined;
    return right === undefined ? where : `${where}; ${right}`;
  }

  private fail(code: string, reason: string, privateData: Uint8Array | undefined): void {
    const { pending } = this;
    this.pending = undefined;
    const name = code in ERRNO ? (code as ErrnoName) : 'ECONNRESET';
    const cause = privateData === undefined ? {} : { cause: privateData };
    pending?.reject(new KernelError(name, 'rdma_cm', reason, cause));
  }

  deviceDied(reason: string): void {
    this.goDown('down');
    this.fail('ENODEV', reason, undefined);
    this.events.push(this.eventOf(RDMA_CM_EVENT_DEVICE_REMOVAL, undefined, { reason }));
  }
}

function saidIn(privateData: Uint8Array): string {
  const text = String.fromCharCode(...privateData);
  return PRINTABLE.test(text) ? `: '${text}'` : '';
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 0 && port <= 65535;
}
