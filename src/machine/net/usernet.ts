import { get16 } from '../../base/index.js';
import { handleArp } from './arp.js';
import { DHCP_SERVER_PORT, handleDhcp } from './dhcp.js';
import { refuseQuery } from './dnsrefusal.js';
import {
  ETH_FRAME_BYTES,
  ETH_HEADER_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  type EthernetPort,
  type FrameSink,
  macAddress,
} from './ethernet.js';
import { FrameWriter, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, Ipv4Packet, PAYLOAD_AT } from './frames.js';
import { handleEcho } from './icmp.js';
import type { HostListener, NetBackend } from './netbackend.js';
import type { NetClock } from './netclock.js';
import { TcpNat } from './tcpnat.js';
import { putUdpHeader, UDP_HEADER_BYTES, udpPayloadBytes } from './udpheader.js';
import { UdpNat } from './udpnat.js';
import { ipv4, ipv4Text } from './wire.js';

/**
 * A network for one guest, made of the host's sockets, as QEMU's `-netdev user`: needs no rights, and shows the guest nothing of the
 * host's own network.
 *
 *     10.0.2.15   the guest, by DHCP or by hand
 *     10.0.2.2    the gateway: answers pings; its ports are those of the host's loopback
 *     10.0.2.3    the name server: the host's own, where the guest may go anywhere
 *
 * Where a guest's connections may go is `outgoing`: nowhere, to the host's loopback (through the gateway's address; the default), or
 * anywhere. Even then never to the host's loopback by another address, nor to broadcast and multicast. Ports of the host's loopback
 * are handed to the guest by `forward`.
 *
 * All that a guest sends is hostile: what is not whole and correct is dropped without a word, tables are bounded, nothing throws.
 * IPv4 only; fragments are dropped.
 *
 * Use: `new UserNetwork(...)`, `await forward(...)`, give it to a card as its EthernetPort.
 */

export const USERNET_GUEST = ipv4('10.0.2.15');
export const USERNET_GATEWAY = ipv4('10.0.2.2');
export const USERNET_DNS = ipv4('10.0.2.3');
const NETWORK = ipv4('10.0.2.0');
const NETMASK = ipv4('255.255.255.0');
const GATEWAY_MAC = macAddress('52:55:0a:00:02:02');
const LOOPBACK = '127.0.0.1';
const DNS_PORT = 53;

export type Outgoing = 'none' | 'loopback' | 'any';

export interface UserNetworkOptions {
  readonly backend: NetBackend;
  readonly clock: NetClock;
  /** Of the guest's card, six bytes. */
  readonly guestMac: Uint8Array;
  readonly outgoing?: Outgoing;
  /** Initial sequence numbers of TCP, as uint32: not to be guessed. */
  readonly random: () => number;
}

export class UserNetwork implements EthernetPort {
  readonly tcp: TcpNat;
  readonly udp: UdpNat;
  private readonly backend: NetBackend;
  private readonly outgoing: Outgoing;
  private readonly out: FrameWriter;
  private readonly packet = new Ipv4Packet();
  private readonly listeners: HostListener[] = [];
  private sink: FrameSink | undefined;

  constructor({ backend, clock, guestMac, outgoing = 'loopback', random }: UserNetworkOptions) {
    this.backend = backend;
    this.outgoing = outgoing;
    this.out = new FrameWriter(GATEWAY_MAC, guestMac, (frame) => this.sink?.(frame));
    const common = { backend, clock, out: this.out, guest: USERNET_GUEST };
    this.tcp = new TcpNat({ ...common, random, route: (address, port) => this.route(address, port)?.address });
    this.udp = new UdpNat({ ...common, route: (address, port) => this.route(address, port) });
  }

  attach(receive: FrameSink): void {
    this.sink = receive;
  }

  /**
   * Hands connections to `hostPort` of the host's loopback to `guestPort` of the guest. Rejects with KernelError EADDRINUSE or EACCES.
   * May wait.
   */
  async forward(hostPort: number, guestPort: number): Promise<void> {
    const accept = (stream: Parameters<TcpNat['forward']>[0]) => this.tcp.forward(stream, guestPort, USERNET_GATEWAY);
    this.listeners.push(await this.backend.tcpListen(hostPort, accept));
  }

  transmit(frame: Uint8Array): void {
    if (frame.length < ETH_HEADER_BYTES || frame.length > ETH_FRAME_BYTES) return;
    const type = get16(frame, 12);
    if (type === ETHERTYPE_ARP) handleArp(frame, GATEWAY_MAC, [USERNET_GATEWAY, USERNET_DNS], this.out);
    else if (type === ETHERTYPE_IPV4 && this.packet.parse(frame)) this.receive(this.packet);
  }

  private receive(packet: Ipv4Packet): void {
    if (packet.protocol === IPPROTO_UDP && this.serveUdp(packet)) return;
    if (packet.src !== USERNET_GUEST) return;
    if (packet.protocol === IPPROTO_ICMP) {
      if (isOurs(packet.dst)) handleEcho(packet, this.out);
    } else if (isUnicast(packet.dst)) {
      if (packet.protocol === IPPROTO_TCP) this.tcp.receive(packet);
    }
  }

  /** DHCP comes from a guest without an address. True: that was all. */
  private serveUdp(packet: Ipv4Packet): boolean {
    const payloadBytes = udpPayloadBytes(packet);
    if (payloadBytes < 0) return true;
    const port = get16(packet.bytes, packet.start + 2);
    const start = packet.start + UDP_HEADER_BYTES;
    if (port === DHCP_SERVER_PORT && (packet.dst === 0xffffffff || packet.dst === USERNET_GATEWAY)) {
      const offer = { guest: USERNET_GUEST, gateway: USERNET_GATEWAY, dns: USERNET_DNS, netmask: NETMASK };
      packet.end = start + payloadBytes;
      handleDhcp(packet, start, offer, this.out);
    } else if (packet.src === USERNET_GUEST && isUnicast(packet.dst)) {
      if (packet.dst === USERNET_DNS && port === DNS_PORT && this.route(packet.dst, port) === undefined) {
        this.refuseName(packet, start, payloadBytes);
      } else this.udp.receive(packet, payloadBytes);
    }
    return true;
  }

  private refuseName(packet: Ipv4Packet, start: number, payloadBytes: number): void {
    const answer = refuseQuery(packet.bytes.subarray(start, start + payloadBytes));
    if (answer === undefined) return;
    const guestPort = get16(packet.bytes, packet.start);
    this.out.bytes.set(answer, PAYLOAD_AT + UDP_HEADER_BYTES);
    putUdpHeader(this.out.bytes, DNS_PORT, guestPort, USERNET_DNS, USERNET_GUEST, answer.length);
    this.out.ipv4(IPPROTO_UDP, USERNET_DNS, USERNET_GUEST, UDP_HEADER_BYTES + answer.length);
  }

  /** Where the guest's packets to an address go. */
  private route(address: number, port: number): { address: string; port: number } | undefined {
    if (address === USERNET_GATEWAY) return this.outgoing === 'none' ? undefined : { address: LOOPBACK, port };
    if (this.outgoing !== 'any') return undefined;
    if (address === USERNET_DNS) {
      const server = port === DNS_PORT ? this.backend.nameServer() : undefined;
      return server === undefined ? undefined : { address: server, port };
    }
    return inNetwork(address) ? undefined : { address: ipv4Text(address), port };
  }

  close(): void {
    this.sink = undefined;
    for (const listener of this.listeners.splice(0)) listener.close();
    this.tcp.close();
    this.udp.close();
  }
}

function inNetwork(address: number): boolean {
  return (address & NETMASK) >>> 0 === NETWORK;
}

function isOurs(address: number): boolean {
  return address === USERNET_GATEWAY || address === USERNET_DNS;
}

/** Neither 0.0.0.0/8, loopback, multicast, reserved, nor the network's own broadcast. */
function isUnicast(address: number): boolean {
  const top = address >>> 24;
  return top !== 0 && top !== 127 && top < 224 && address !== (NETWORK | 255) >>> 0;
}
