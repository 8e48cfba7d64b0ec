import type { HostStats } from '../../mm/index.js';
import {
  type AsyncEvent,
  type CmId,
  type CompletionQueue,
  type DeviceStats,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_ATOMIC,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  IBV_WC_RECV,
  IBV_WC_SUCCESS,
  IBV_WR_SEND,
  type MemoryRegion,
  type QueuePair,
  RDMA_CM_EVENT_CONNECT_REQUEST,
  RDMA_CM_EVENT_DISCONNECTED,
} from '../../rdma/index.js';
import { formatSize } from '../args.js';
import { OutputFile, refuseSameFile } from '../files.js';
import { HostProgress } from '../hostprogress.js';
import { HostRun } from '../hostrun.js';
import { StopSignals } from '../stop.js';
import type { RdmaServerOptions } from './command.js';
import { arenaBytes, ECHO_BYTES, ECHO_DEPTH, encodeRegion, mapMemory, openRnic, type Rnic } from './service.js';

/**
 * `unpin rdma server`: a region larger than the host's memory, which peers read and write. The NIC brings a page in when the network asks for it, and is
 * told when the host takes it away; nothing is pinned.
 */

const REMOTE = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

/** WHY: peers may come and go for days. */
const MAX_REPORTED = 1000;

/** What the report says of a connection. */
interface ConnectionReport {
  readonly peer: string;
  /** 'disconnected', or why it was ended. */
  end: string;
  pings: number;
  wallMs: number;
}

interface Report {
  readonly server: {
    readonly port: number;
    readonly regionBytes: number;
    readonly pinned: boolean;
    readonly nrConnections: number;
    /** The last MAX_REPORTED of them. */
    readonly connections: readonly ConnectionReport[];
    readonly device: DeviceStats;
  };
  readonly host: HostStats;
}

/** Serves until a signal comes, or with `once` until the first peer has gone; resolves with the command's exit code. Throws KernelError for what cannot work. */
export async function rdmaServer(options: RdmaServerOptions): Promise<number> {
  refuseSameFile({ '--swap': options.swap, '--json': options.json });
  const signals = new StopSignals();
  let json: OutputFile | undefined;
  let run: HostRun | undefined;
  let rnic: Rnic | undefined;
  try {
    run = await HostRun.open({ ...options, arenaBytes: arenaBytes(options.region), onSwapError: complain });
    if (options.json !== undefined) json = new OutputFile('report', options.json);
    rnic = openRnic(run.host, 'server', options.memlock);
    const server = await Server.start(rnic, options);
    const progress = new HostProgress(run.host, 1);
    progress.start();
    const ok = await server.run(signals);
    progress.stop();
    const report = server.report();
    process.stderr.write(reportText(report));
    json?.write(`${JSON.stringify(report, null, 2)}\n`);
    return signals.exitCode ?? (ok ? 0 : 1);
  } catch (error) {
    json?.discard();
    throw error;
  } finally {
    await rnic?.device.close();
    await run?.close();
    signals.remove();
  }
}

function complain(message: string): void {
  process.stderr.write(`unpin: ${message}\n`);
}

class Server {
  private readonly rnic: Rnic;
  private readonly listener: CmId;
  private readonly region: MemoryRegion;
  private readonly options: RdmaServerOptions;
  private nrConnections = 0;
  private readonly connections: ConnectionReport[] = [];
  private readonly live = new Map<CmId, Promise<void>>();
  private readonly reasons = new Map<number, string>();
  private firstEnded: ((ok: boolean) => void) | undefined;

  private constructor(rnic: Rnic, listener: CmId, region: MemoryRegion, options: RdmaServerOptions) {
    this.rnic = rnic;
    this.listener = listener;
    this.region = region;
    this.options = options;
    rnic.context.onAsyncEvent = ({ qp, reason }: AsyncEvent) => {
      if (qp !== undefined) this.reasons.set(qp.qpNum, reason);
    };
  }

  static async start(rnic: Rnic, options: RdmaServerOptions): Promise<Server> {
    const access = options.pin ? REMOTE : REMOTE | IBV_ACCESS_ON_DEMAND;
    const region = await rnic.pd.regMr(mapMemory(rnic.mm, options.region), options.region, access);
    const listener = rnic.context.createId();
    await listener.bindAddr({ host: options.host, port: options.port });
    await listener.listen();
    const { host: at, port } = listener.localAddr!;
    process.stdout.write(
      `unpin rdma server: ${formatSize(options.region)} in ${formatSize(options.frames)} at ${at} port ${port}\n`,
    );
    return new Server(rnic, listener, region, options);
  }

  /** Until it is told to end; true: no connection that it waited for went wrong. */
  async run(signals: StopSignals): Promise<boolean> {
    const ended = new Promise<boolean>((resolve) => {
      if (this.options.once) this.firstEnded = resolve;
      signals.onStop(() => resolve(true));
    });
    void this.acceptAll();
    const ok = await ended;
    await this.disconnectAll();
    return ok;
  }

  private async acceptAll(): Promise<void> {
    for await (const { event, id } of this.listener.events) {
      if (event !== RDMA_CM_EVENT_CONNECT_REQUEST) continue;
      const serving = this.serve(id).finally(() => this.live.delete(id));
      this.live.set(id, serving);
    }
  }

  /** No peer is left: those that are there hear of it. */
  private async disconnectAll(): Promise<void> {
    this.listener.destroyId();
    const live = [...this.live];
    await Promise.all(live.map(([id]) => id.disconnect().catch(() => id.destroyId())));
    await Promise.all(live.map(([, serving]) => serving));
  }

  /** One peer, from its request to its end. What goes wrong with it is its own affair, and told in one line. */
  private async serve(id: CmId): Promise<void> {
    const began = performance.now();
    const { host = '', port = 0 } = id.peerAddr ?? {};
    const connection: ConnectionReport = { peer: `${host} port ${port}`, end: '', pings: 0, wallMs: 0 };
    this.nrConnections++;
    if (this.connections.push(connection) > MAX_REPORTED) this.connections.shift();
    try {
      connection.end = await this.converse(id, connection);
    } catch (error) {
      connection.end = error instanceof Error ? error.message : String(error);
      id.destroyId();
    }
    connection.wallMs = performance.now() - began;
    if (connection.end !== 'disconnected') complain(`${connection.peer}: ${connection.end}`);
    this.firstEnded?.(connection.end === 'disconnected');
  }

  private async converse(id: CmId, connection: ConnectionReport): Promise<string> {
    const { context, pd, mm } = this.rnic;
    const va = mapMemory(mm, ECHO_DEPTH * ECHO_BYTES);
    let cq: CompletionQueue | undefined;
    let buffers: MemoryRegion | undefined;
    let echo: Promise<void> | undefined;
    try {
      cq = context.createCq(4 * ECHO_DEPTH);
      const cap = { maxSendWr: ECHO_DEPTH, maxRecvWr: ECHO_DEPTH, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 };
      const qp = id.createQp(pd, { sendCq: cq, recvCq: cq, cap, sqSigAll: true });
      buffers = await pd.regMr(va, ECHO_DEPTH * ECHO_BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
      echo = this.echo(qp, buffers, connection);
      await this.accept(id);
      return await this.untilGone(id, qp);
    } catch (error) {
      // Before it was accepted; a peer that has gone since cannot be told.
      if (buffers === undefined) await id.reject(Buffer.from('no room for another connection')).catch(() => {});
      throw error;
    } finally {
      id.destroyId();
      id.qp?.destroyQp();
      cq?.destroyCq();
      await echo;
      await buffers?.deregMr();
      mm.munmap(va, ECHO_DEPTH * ECHO_BYTES);
    }
  }

  private async accept(id: CmId): Promise<void> {
    const { iova: addr, length, rkey } = this.region;
    const privateData = encodeRegion({ addr, length, rkey });
    await id.accept({ privateData, responderResources: 64, initiatorDepth: 0, crc: this.options.crc });
  }

  private async untilGone(id: CmId, { qpNum }: QueuePair): Promise<string> {
    for await (const { event, reason } of id.events) {
      if (event !== RDMA_CM_EVENT_DISCONNECTED) continue;
      const known = this.reasons.get(qpNum);
      this.reasons.delete(qpNum);
      return known ?? reason ?? 'disconnected';
    }
    return 'the device is gone';
  }

  /** Sends what comes back; ends with the queue. */
  private async echo(qp: QueuePair, { addr, lkey }: MemoryRegion, connection: ConnectionReport): Promise<void> {
    const bufferAt = (wrId: number, length: number) => ({ addr: addr + wrId * ECHO_BYTES, length, lkey });
    const receive = (wrId: number) => qp.postRecv({ wrId, sgList: [bufferAt(wrId, ECHO_BYTES)] });
    for (let wrId = 0; wrId < ECHO_DEPTH; wrId++) receive(wrId);
    for await (const wc of qp.recvCq) {
      if (wc.status !== IBV_WC_SUCCESS) continue;
      if (wc.opcode === IBV_WC_RECV) {
        connection.pings++;
        qp.postSend({ wrId: wc.wrId, opcode: IBV_WR_SEND, sgList: [bufferAt(wc.wrId, wc.byteLen)] });
      } else receive(wc.wrId);
    }
  }

  report(): Report {
    const { device } = this.rnic;
    const { connections, nrConnections, options } = this;
    const { port } = this.listener.localAddr!;
    const server = { port, regionBytes: options.region, pinned: options.pin, nrConnections, connections };
    return { server: { ...server, device: device.stats() }, host: device.host.stats() };
  }
}

function reportText({ server, host }: Report): string {
  const { device, nrConnections } = server;
  return (
    `\n  ${nrConnections} connections; received ${formatSize(device.bytesReceived)}, sent ${formatSize(device.bytesSent)}\n` +
    `  faults ${device.minorFaults} minor, ${device.majorFaults} major, retried ${device.retries}; ` +
    `pages invalidated ${device.pageInvalidations}; pinned ${device.pinnedPages}\n` +
    `  ${formatSize(server.regionBytes)} of memory in ${formatSize(host.framesPeak * 4096)} of frames; ` +
    `swapped out ${host.swapOutPages} pages, in ${host.swapInPages}\n`
  );
}
