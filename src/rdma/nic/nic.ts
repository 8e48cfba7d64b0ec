import type { WasmMemory, Words } from '../../base/index.js';
import { FAULT_FLAG_WRITE, RemoteMm } from '../../mm/index.js';
import type { NicThreadInit, Stream, StreamHandler, StreamListener, StreamNet } from '../environment.js';
import { type Crc32c, createCrc32c } from '../wire/index.js';
import type { Access } from './access.js';
import { type ConnOwner, NicConn, NR_COUNTERS } from './connection.js';
import { type CopyOps, createCopyOps } from './copyops.js';
import type { ConnWish, FromNic, ToNic } from './messages.js';
import { NicMemory, type NicPages } from './nicmemory.js';
import { NicQp, type QpOwner } from './nicqp.js';
import { NicState } from './nicstate.js';
import { RecvQueue } from './recvqueue.js';
import { memoryWords } from './region.js';
import { RegionTable } from './regiontable.js';

/**
 * The NIC: queue pairs, connections, and what the mm thread tells it. The same runs in a thread of its own (`runNicThread`), with nothing but shared memory and
 * messages, and on the mm thread, where it asks the mm itself for pages.
 */

export interface NicPort {
  post(message: FromNic): void;
  setTimer(fn: () => void, ms: number): () => void;
  /** Calls `fn` when all I/O that is there has had its turn. */
  defer(fn: () => void): void;
  readonly net: StreamNet;
  /** On the mm thread: how its contexts resolve faults. */
  pagesOf?(context: number): NicPages | undefined;
}

/** WHY: half of the requests that a pipeline of 16 has under way, so that there are others to be done meanwhile. */
const TOLD_AT = 8;

/** Requests of one listener that nobody has looked at, and connections in their set-up, are at most its backlog, each. */
interface Listener {
  net: StreamListener | undefined;
  readonly backlog: number;
  readonly pending: Set<number>;
}

/** Streams that are ending after an answer in the set-up: for so long, and so many. */
const LINGER_MS = 1_000;
const MAX_LINGERING = 64;

export class Nic implements QpOwner, ConnOwner {
  readonly memory: WasmMemory;
  readonly words: Words;
  readonly nicMemory: NicMemory;
  readonly counters: Float64Array;
  readonly u8: Uint8Array;
  readonly copyOps: CopyOps;
  readonly maxWindow: number;
  private readonly port: NicPort;
  private readonly crcAddr: number;
  private crcOf: Crc32c | undefined;
  private readonly qps = new Map<number, NicQp>();
  private readonly recvQueues = new Map<number, RecvQueue>();
  private readonly conns = new Map<number, NicConn>();
  private readonly connOfQp = new Map<number, NicConn>();
  private readonly listeners = new Map<number, Listener>();
  private readonly contexts = new Map<number, NicPages>();
  private readonly faults = new Map<number, { access: Access; key: number; page: number }>();
  private readonly lingering = new Set<Stream>();
  /** Completion queues whose event is to be told, and how many completions there were since the first of them. */
  private readonly toTell: number[] = [];
  private nrUntold = 0;
  private isTellDeferred = false;
  private nextFault = 1;
  private nextConn = -1;

  constructor(init: NicThreadInit, port: NicPort) {
    const { memory } = init;
    this.memory = memory;
    this.port = port;
    this.u8 = new Uint8Array(memory.buffer);
    this.words = memoryWords(memory);
    this.crcAddr = init.crcAddr;
    this.maxWindow = init.maxWindow;
    this.counters = new Float64Array(memory.buffer, init.countersAddr, NR_COUNTERS);
    const table = new RegionTable(this.words, init.regionsAddr, init.nrRegions);
    const state = new NicState(memory, init.stateAddr);
    this.copyOps = createCopyOps(memory);
    this.nicMemory = new NicMemory(memory, this.words, state, table, this.copyOps, {
      request: (access, key, page, nrPages, write) => this.requestFault(access, key, page, nrPages, write),
      readAhead: (key, page, nrPages, write) => this.post({ type: 'readAhead', key, page, nrPages, write }),
      pagesOf: (context) => this.contexts.get(context) ?? port.pagesOf?.(context),
    });
  }

  get crc(): Crc32c {
    return (this.crcOf ??= createCrc32c(this.memory, this.crcAddr));
  }

  post(message: FromNic): void {
    this.tellCompletions();
    this.port.post(message);
  }

  /**
   * Completions are told when a turn of the event loop has brought no more of them, or when there are TOLD_AT; and before whatever else is told. WHY: each event wakes the user's thread,
   * and that one wakes this one: 15 changes of threads for a MiB, where it was done one by one.
   */
  completed(cqAddr: number): void {
    if (cqAddr !== 0) this.toTell.push(cqAddr);
    if (this.toTell.length === 0) return;
    if (++this.nrUntold >= TOLD_AT) this.tellCompletions();
    else if (!this.isTellDeferred) this.deferTell();
  }

  private deferTell(): void {
    const { nrUntold } = this;
    this.isTellDeferred = true;
    this.port.defer(() => {
      this.isTellDeferred = false;
      if (this.nrUntold === nrUntold) this.tellCompletions();
      else if (this.nrUntold > 0) this.deferTell();
    });
  }

  private tellCompletions(): void {
    this.nrUntold = 0;
    if (this.toTell.length === 0) return;
    for (const cqAddr of this.toTell.splice(0)) this.port.post({ type: 'cqEvent', cqAddr });
  }

  setTimer(fn: () => void, ms: number): () => void {
    return this.port.setTimer(fn, ms);
  }

  defer(fn: () => void): void {
    this.port.defer(fn);
  }

  recvQueueAt(address: number): RecvQueue {
    let queue = this.recvQueues.get(address);
    if (queue === undefined) this.recvQueues.set(address, (queue = new RecvQueue(this.words, address)));
    return queue;
  }

  handle(message: ToNic): void {
    switch (message.type) {
      case 'openContext':
        if (message.remote !== undefined)
          this.contexts.set(message.context, remotePages(new RemoteMm(this.memory, message.remote)));
        return;
      case 'closeContext':
        this.contexts.delete(message.context);
        return this.post({ type: 'contextClosed', context: message.context });
      case 'createQp':
        this.qps.set(message.place.qpNum, new NicQp(this, message.place));
        return;
      case 'destroyQp':
        return this.destroyQp(message.qpNum);
      case 'failQp':
        return this.failQp(message.qpNum, message.reason);
      case 'doorbell':
        return this.doorbell(message.qpNum);
      case 'faulted':
        return this.faulted(message.id, message.failed, message.reason);
      case 'stop':
        return this.stop();
      default:
        return this.handleCm(message);
    }
  }

  private handleCm(message: ToNic): void {
    switch (message.type) {
      case 'listen':
        void this.listen(message.conn, message.addr, message.backlog);
        return;
      case 'connect':
        return this.connect(message.conn, message.addr, message.qpNum, message.wish);
      case 'accept':
        return this.accept(message.conn, message.qpNum, message.wish);
      case 'reject':
        this.answered(message.conn);
        return this.conns.get(message.conn)?.reject(message.privateData);
      case 'disconnect':
        return this.conns.get(message.conn)?.disconnect();
      case 'closeConn':
        return this.closeConn(message.conn);
    }
  }

  // Queue pairs.

  private doorbell(qpNum: number): void {
    const qp = this.qps.get(qpNum);
    if (qp === undefined) return;
    // Before the ring is looked at: who posts later sees that the doorbell must be rung again. Pairs with `postSend`.
    qp.sq.ring.arm(0);
    if (qp.failed) qp.flush();
    else this.connOfQp.get(qpNum)?.pumpTx();
  }

  private failQp(qpNum: number, reason: string): void {
    const qp = this.qps.get(qpNum);
    qp?.fail(reason, 0, false);
    // What was held back is dropped, and the connection ends.
    qp?.onResumeRx();
  }

  private destroyQp(qpNum: number): void {
    const qp = this.qps.get(qpNum);
    this.qps.delete(qpNum);
    this.connOfQp.get(qpNum)?.destroy();
    this.connOfQp.delete(qpNum);
    if (qp !== undefined && !qp.where.isSrq) this.recvQueues.delete(qp.where.rqAddr);
    this.post({ type: 'qpGone', qpNum });
  }

  // Faults.

  private requestFault(access: Access, key: number, page: number, nrPages: number, write: boolean): void {
    const id = this.nextFault++;
    access.waiting = true;
    this.faults.set(id, { access, key, page });
    this.post({ type: 'fault', id, key, page, nrPages, write });
  }

  /** The page stays where it is until the answer to this is there: whoever waited for it has copied by then (N26). */
  private faulted(id: number, failed: number, reason: string | undefined): void {
    const { access, key, page } = this.faults.get(id)!;
    this.faults.delete(id);
    access.waiting = false;
    if (failed !== 0) access.fail(key, page, failed, reason);
    access.resume();
    this.post({ type: 'faultUsed', id });
  }

  // Connections.

  private async listen(conn: number, addr: { host: string; port: number }, backlog: number): Promise<void> {
    const listener: Listener = { net: undefined, backlog, pending: new Set() };
    this.listeners.set(conn, listener);
    try {
      // The kernel's own queue is short-lived: what is in it is looked at here at once.
      const nrQueued = Math.max(backlog, 128);
      listener.net = await this.port.net.listen(addr, nrQueued, (stream) => this.incoming(conn, listener, stream));
      if (!this.listeners.has(conn)) return listener.net.close();
      this.post({ type: 'listening', conn, localAddr: listener.net.localAddr });
    } catch (error) {
      this.listeners.delete(conn);
      const { code = 'EIO', message } = error as { code?: string; message: string };
      // The connection manager says the code by itself.
      const reason = message.replace(/^E[A-Z]+: listen: /, '');
      this.post({ type: 'connectFailed', conn, code, reason, privateData: undefined });
    }
  }

  private incoming(id: number, listener: Listener, stream: Stream): StreamHandler {
    const conn = new NicConn(this, this.nextConn--, id);
    conn.net = stream;
    this.conns.set(conn.id, conn);
    if (!this.listeners.has(id) || this.nrInSetup(id) > 2 * listener.backlog) conn.destroy();
    return conn;
  }

  private nrInSetup(listener: number): number {
    let nr = 0;
    for (const conn of this.conns.values()) if (conn.listener === listener && conn.qp === undefined) nr++;
    return nr;
  }

  requested(conn: NicConn, wish: ConnWish): boolean {
    const listener = this.listeners.get(conn.listener);
    if (listener === undefined || listener.pending.size >= listener.backlog) return false;
    listener.pending.add(conn.id);
    const { localAddr, peerAddr } = conn.net;
    this.post({ type: 'connectRequest', listener: conn.listener, conn: conn.id, wish, localAddr, peerAddr });
    return true;
  }

  /** A request was looked at, or is gone. */
  private answered(conn: number): void {
    for (const listener of this.listeners.values()) listener.pending.delete(conn);
  }

  private connect(id: number, addr: { host: string; port: number }, qpNum: number, wish: ConnWish): void {
    const qp = this.qps.get(qpNum)!;
    const conn = new NicConn(this, id, 0);
    conn.attach(qp, wish);
    this.conns.set(id, conn);
    this.connOfQp.set(qpNum, conn);
    conn.net = this.port.net.connect(addr, conn);
  }

  private accept(id: number, qpNum: number, wish: ConnWish): void {
    this.answered(id);
    const conn = this.conns.get(id);
    const qp = this.qps.get(qpNum);
    if (conn === undefined || qp === undefined) {
      const reason = 'the peer has gone';
      return this.post({ type: 'connectFailed', conn: id, code: 'ECONNRESET', reason, privateData: undefined });
    }
    this.connOfQp.set(qpNum, conn);
    conn.accept(qp, wish);
  }

  private closeConn(id: number): void {
    this.listeners.get(id)?.net?.close();
    this.listeners.delete(id);
    this.conns.get(id)?.destroy();
  }

  forget(conn: NicConn): void {
    this.conns.delete(conn.id);
    this.answered(conn.id);
    if (conn.qp !== undefined && this.connOfQp.get(conn.qp.where.qpNum) === conn)
      this.connOfQp.delete(conn.qp.where.qpNum);
  }

  linger(stream: Stream): void {
    stream.end();
    const [oldest] = this.lingering;
    if (this.lingering.size >= MAX_LINGERING) this.cutOff(oldest!);
    this.lingering.add(stream);
    this.setTimer(() => this.cutOff(stream), LINGER_MS);
  }

  private cutOff(stream: Stream): void {
    if (this.lingering.delete(stream)) stream.destroy();
  }

  private stop(): void {
    for (const id of [...this.listeners.keys()]) this.closeConn(id);
    for (const conn of [...this.conns.values()]) conn.destroy();
    for (const stream of [...this.lingering]) this.cutOff(stream);
    this.post({ type: 'stopped' });
  }
}

function remotePages(remote: RemoteMm): NicPages {
  return {
    tryGetPage: (va, flags) => remote.lookup(va, (flags & FAULT_FLAG_WRITE) !== 0),
    putPage: () => {},
    mapZero: (va) => remote.mapZero(va),
  };
}

/** What runs in a NIC's thread: a worker calls it with what it was sent, and hands each later message to what it returns. */
export function runNicThread(init: NicThreadInit, port: NicPort): (message: unknown) => void {
  const nic = new Nic(init, port);
  return (message) => nic.handle(message as ToNic);
}
