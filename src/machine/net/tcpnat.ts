import { put16, put32 } from '../../base/index.js';
import { type FrameWriter, IPPROTO_TCP, type Ipv4Packet, PAYLOAD_AT } from './frames.js';
import type { HostStream, HostStreamEvents, NetBackend } from './netbackend.js';
import type { NetClock } from './netclock.js';
import { RECEIVE_SCALE, TcpConnection, type TcpLink } from './tcpconnection.js';
import {
  OPTION_MSS,
  OPTION_WINDOW_SCALE,
  TCP_ACK,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  TcpSegment,
} from './tcpsegment.js';
import { foldChecksum, pseudoSum, sum16 } from './wire.js';

/**
 * TCP of a guest, joined to sockets of the host: the table of connections, their segments, their timers.
 *
 * Bounded: MAX_CONNECTIONS in the table and MAX_CONNECTING of them on their way; a SYN beyond is not heard, and the guest sends it
 * again. One timer looks at all deadlines, and runs only while there are any.
 */

export const MAX_CONNECTIONS = 1024;
export const MAX_CONNECTING = 128;
const TICK_MS = 50;
const MSS = 1460;
/** Ports of forwarded connections, as the guest sees them (RFC 6335: dynamic ports). */
const EPHEMERAL_FIRST = 49152;
const EPHEMERAL_PORTS = 16384;

/** Where a guest's connection goes: an address of the host's world, or undefined where it may not. */
export type TcpRoute = (address: number, port: number) => string | undefined;

export interface TcpNatOptions {
  readonly backend: NetBackend;
  readonly clock: NetClock;
  readonly out: FrameWriter;
  readonly guest: number;
  readonly route: TcpRoute;
  /** Initial sequence numbers, as uint32. */
  readonly random: () => number;
}

export class TcpNat implements TcpLink {
  /** By guest port and remote port, then by remote address. */
  private readonly table = new Map<number, Map<number, TcpConnection>>();
  private readonly connections = new Set<TcpConnection>();
  private readonly options: TcpNatOptions;
  private readonly segment = new TcpSegment();
  private acks: TcpConnection[] = [];
  private nextPort = 0;
  private cancelTick: (() => void) | undefined;
  private closing = false;

  constructor(options: TcpNatOptions) {
    this.options = options;
  }

  get nrConnections(): number {
    return this.connections.size;
  }

  /** A packet of the guest, of protocol TCP. */
  receive(packet: Ipv4Packet): void {
    const { segment } = this;
    if (!segment.parse(packet) || segment.srcPort === 0 || segment.dstPort === 0) return;
    const connection = this.find(segment.srcPort, packet.dst, segment.dstPort);
    const opens = segment.has(TCP_SYN) && !segment.has(TCP_ACK | TCP_RST);
    if (connection !== undefined && !(connection.state === 'timeWait' && opens)) return connection.receive(segment);
    if (connection !== undefined) this.remove(connection);
    if (opens) this.open(packet.dst);
    else if (!segment.has(TCP_RST)) this.refuse(packet.dst);
  }

  private open(remote: number): void {
    const { segment, options } = this;
    const address = options.route(remote, segment.dstPort);
    if (address === undefined) return this.refuse(remote);
    if (this.connections.size >= MAX_CONNECTIONS || this.nrConnecting() >= MAX_CONNECTING) return;
    const connection = this.add(segment.srcPort, remote, segment.dstPort);
    connection.openFromGuest(segment);
    connection.host = options.backend.tcpConnect(address, segment.dstPort, connection);
  }

  private nrConnecting(): number {
    let nr = 0;
    for (const { state } of this.connections) if (state === 'connecting' || state === 'synReceived') nr++;
    return nr;
  }

  /**
   * Joins a stream that the host has accepted to a port of the guest; undefined where there is no room for it.
   * The guest sees the connection come from `remote`.
   */
  forward(stream: HostStream, guestPort: number, remote: number): HostStreamEvents | undefined {
    if (this.connections.size >= MAX_CONNECTIONS || this.closing) return undefined;
    for (let tries = 0; tries < EPHEMERAL_PORTS; tries++) {
      const port = EPHEMERAL_FIRST + (this.nextPort++ % EPHEMERAL_PORTS);
      if (this.find(guestPort, remote, port) !== undefined) continue;
      const connection = this.add(guestPort, remote, port);
      connection.openToGuest(stream);
      return connection;
    }
    return undefined;
  }

  private add(guestPort: number, remote: number, remotePort: number): TcpConnection {
    const connection = new TcpConnection(guestPort, remote, remotePort, this.options.random() | 0, this);
    const key = portsKey(guestPort, remotePort);
    let byRemote = this.table.get(key);
    if (byRemote === undefined) this.table.set(key, (byRemote = new Map()));
    byRemote.set(remote, connection);
    this.connections.add(connection);
    return connection;
  }

  private find(guestPort: number, remote: number, remotePort: number): TcpConnection | undefined {
    return this.table.get(portsKey(guestPort, remotePort))?.get(remote);
  }

  remove(connection: TcpConnection): void {
    if (!this.connections.delete(connection)) return;
    const key = portsKey(connection.guestPort, connection.remotePort);
    const byRemote = this.table.get(key)!;
    byRemote.delete(connection.remote);
    if (byRemote.size === 0) this.table.delete(key);
  }

  /** Ends every connection: the guest is gone. */
  close(): void {
    this.closing = true;
    for (const connection of [...this.connections]) connection.abort();
    this.cancelTick?.();
  }

  nowMs(): number {
    return this.options.clock.nowMs();
  }

  deferAck(connection: TcpConnection): void {
    if (this.acks.push(connection) === 1) this.options.clock.defer(this.flushAcks);
  }

  private readonly flushAcks = (): void => {
    const acks = this.acks;
    this.acks = [];
    for (const connection of acks) connection.flushAck();
  };

  arm(): void {
    this.cancelTick ??= this.options.clock.setTimer(this.tick, TICK_MS);
  }

  private readonly tick = (): void => {
    this.cancelTick = undefined;
    const now = this.nowMs();
    let waiting = false;
    for (const connection of this.connections) {
      if (connection.deadline <= now) connection.timeout();
      if (connection.deadline !== Infinity) waiting = true;
    }
    if (waiting) this.arm();
  };

  emit(connection: TcpConnection, seq: number, flags: number, window: number, offset: number, lenBytes: number): void {
    const { bytes } = this.options.out;
    const syn = (flags & TCP_SYN) !== 0;
    const headerBytes = TCP_HEADER_BYTES + (syn ? putSynOptions(bytes, connection.scaling) : 0);
    connection.sender.buffer.copy(offset, lenBytes, bytes, PAYLOAD_AT + headerBytes);
    const ack = (flags & TCP_ACK) !== 0 ? connection.ackNumber : 0;
    const { remotePort, guestPort, remote } = connection;
    putHeader(bytes, remotePort, guestPort, seq, ack, (headerBytes << 10) | flags, window);
    this.send(remote, headerBytes + lenBytes);
  }

  /** A RST for a segment of no connection (RFC 9293 section 3.10.7.1). */
  private refuse(remote: number): void {
    const { segment } = this;
    const { bytes } = this.options.out;
    const acked = segment.has(TCP_ACK);
    const seq = acked ? segment.ack : 0;
    const ack = acked ? 0 : (segment.seq + segment.seqLen) | 0;
    const flags = TCP_RST | (acked ? 0 : TCP_ACK);
    putHeader(bytes, segment.dstPort, segment.srcPort, seq, ack, (TCP_HEADER_BYTES << 10) | flags, 0);
    this.send(remote, TCP_HEADER_BYTES);
  }

  private send(remote: number, lenBytes: number): void {
    const { out, guest } = this.options;
    const pseudo = pseudoSum(remote, guest, IPPROTO_TCP, lenBytes);
    put16(out.bytes, PAYLOAD_AT + 16, foldChecksum(sum16(out.bytes, PAYLOAD_AT, PAYLOAD_AT + lenBytes, pseudo)));
    out.ipv4(IPPROTO_TCP, remote, guest, lenBytes);
  }
}

/** Both ports in one number. */
function portsKey(guestPort: number, remotePort: number): number {
  return guestPort * 0x10000 + remotePort;
}

/** The checksum is left 0; `offsetAndFlags` is the header's fourth word's upper half. */
function putHeader(
  bytes: Uint8Array,
  srcPort: number,
  dstPort: number,
  seq: number,
  ack: number,
  offsetAndFlags: number,
  window: number,
): void {
  put16(bytes, PAYLOAD_AT, srcPort);
  put16(bytes, PAYLOAD_AT + 2, dstPort);
  put32(bytes, PAYLOAD_AT + 4, seq);
  put32(bytes, PAYLOAD_AT + 8, ack);
  put16(bytes, PAYLOAD_AT + 12, offsetAndFlags);
  put16(bytes, PAYLOAD_AT + 14, window);
  put32(bytes, PAYLOAD_AT + 16, 0);
}

/** Writes them behind the header; returns their length. */
function putSynOptions(bytes: Uint8Array, scaling: boolean): number {
  const at = PAYLOAD_AT + TCP_HEADER_BYTES;
  put32(bytes, at, (OPTION_MSS << 24) | (4 << 16) | MSS);
  if (!scaling) return 4;
  put32(bytes, at + 4, (1 << 24) | (OPTION_WINDOW_SCALE << 16) | (3 << 8) | RECEIVE_SCALE);
  return 8;
}
