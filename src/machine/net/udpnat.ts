import { get16 } from '../../base/index.js';
import { ETH_HEADER_BYTES, ETH_MTU } from './ethernet.js';
import { type FrameWriter, IPPROTO_UDP, IPV4_HEADER_BYTES, type Ipv4Packet, PAYLOAD_AT } from './frames.js';
import { ICMP_PORT_UNREACHABLE, ICMP_PROHIBITED, sendUnreachable, unreachable } from './icmp.js';
import type { HostDatagrams, NetBackend } from './netbackend.js';
import type { NetClock } from './netclock.js';
import { putUdpHeader, UDP_HEADER_BYTES } from './udpheader.js';

/**
 * UDP of a guest, joined to sockets of the host: a flow for each pair of a guest's port and an address it sends to.
 *
 * Bounded: MAX_FLOWS; the one that was silent for longest makes room. A flow that is silent for IDLE_MS ends. Answers longer than
 * the MTU are lost, as are fragments of the guest.
 */

export const MAX_FLOWS = 256;
const IDLE_MS = 60_000;
const SWEEP_MS = 10_000;
const MAX_PAYLOAD = ETH_MTU - IPV4_HEADER_BYTES - UDP_HEADER_BYTES;

/** Where a guest's datagrams go, as an address and port of the host's world, or undefined where they may not. */
export type UdpRoute = (address: number, port: number) => { address: string; port: number } | undefined;

export interface UdpNatOptions {
  readonly backend: NetBackend;
  readonly clock: NetClock;
  readonly out: FrameWriter;
  readonly guest: number;
  readonly route: UdpRoute;
}

interface Flow {
  readonly key: string;
  readonly socket: HostDatagrams;
  usedMs: number;
}

export class UdpNat {
  /** The one used last stands last. */
  private readonly flows = new Map<string, Flow>();
  private readonly options: UdpNatOptions;
  private cancelSweep: (() => void) | undefined;

  constructor(options: UdpNatOptions) {
    this.options = options;
  }

  get nrFlows(): number {
    return this.flows.size;
  }

  /** A correct datagram of the guest, to another port than those the network serves itself. */
  receive(packet: Ipv4Packet, payloadBytes: number): void {
    const { bytes, start, dst } = packet;
    const guestPort = get16(bytes, start);
    const port = get16(bytes, start + 2);
    const key = `${guestPort} ${dst} ${port}`;
    const flow = this.flows.get(key) ?? this.open(key, packet, guestPort, port);
    if (flow === undefined) return;
    flow.usedMs = this.options.clock.nowMs();
    this.flows.delete(key);
    this.flows.set(key, flow);
    const from = start + UDP_HEADER_BYTES;
    flow.socket.send(bytes.subarray(from, from + payloadBytes));
  }

  private open(key: string, packet: Ipv4Packet, guestPort: number, port: number): Flow | undefined {
    const { options } = this;
    const to = options.route(packet.dst, port);
    if (to === undefined) {
      sendUnreachable(packet, ICMP_PROHIBITED, options.out);
      return undefined;
    }
    for (const oldest of this.flows.values()) {
      if (this.flows.size < MAX_FLOWS) break;
      this.end(oldest);
    }
    const quote = packet.bytes.slice(ETH_HEADER_BYTES, packet.start + UDP_HEADER_BYTES);
    const { dst } = packet;
    const socket = options.backend.udpOpen(to.address, to.port, {
      data: (bytes) => this.deliver(bytes, dst, port, guestPort),
      refused: () => unreachable(quote, dst, options.guest, ICMP_PORT_UNREACHABLE, options.out),
    });
    this.cancelSweep ??= options.clock.setTimer(this.sweep, SWEEP_MS);
    return { key, socket, usedMs: 0 };
  }

  private deliver(bytes: Uint8Array, src: number, srcPort: number, guestPort: number): void {
    if (bytes.length > MAX_PAYLOAD) return;
    const { out, guest } = this.options;
    out.bytes.set(bytes, PAYLOAD_AT + UDP_HEADER_BYTES);
    putUdpHeader(out.bytes, srcPort, guestPort, src, guest, bytes.length);
    out.ipv4(IPPROTO_UDP, src, guest, UDP_HEADER_BYTES + bytes.length);
  }

  private readonly sweep = (): void => {
    this.cancelSweep = undefined;
    const before = this.options.clock.nowMs() - IDLE_MS;
    for (const flow of this.flows.values()) if (flow.usedMs <= before) this.end(flow);
    if (this.flows.size > 0) this.cancelSweep = this.options.clock.setTimer(this.sweep, SWEEP_MS);
  };

  private end(flow: Flow): void {
    this.flows.delete(flow.key);
    flow.socket.close();
  }

  close(): void {
    this.cancelSweep?.();
    for (const flow of [...this.flows.values()]) this.end(flow);
  }
}
