import { get32, put32 } from '../../base/index.js';
import { type FrameWriter, IPPROTO_UDP, type Ipv4Packet, PAYLOAD_AT } from './frames.js';
import { putUdpHeader, UDP_HEADER_BYTES } from './udpheader.js';

/**
 * A DHCP server with one address to give: every client on this link is the guest.
 *
 * DISCOVER gets an offer, REQUEST an acknowledgement, or a refusal where it asks for another address, INFORM the options alone.
 * All else is ignored.
 *
 * Source: RFC 2131 (protocol), RFC 2132 (options).
 */

export const DHCP_SERVER_PORT = 67;
const DHCP_CLIENT_PORT = 68;
const BOOTREQUEST = 1;
const BOOTREPLY = 2;
/** Fixed part of a message, and the cookie that options follow. */
const FIXED_BYTES = 236;
const OPTIONS_AT = FIXED_BYTES + 4;
const COOKIE = 0x63825363;
/** The shortest message that every client takes (RFC 1542: 300 bytes). */
const REPLY_BYTES = 300;
const LEASE_SECONDS = 86_400;
const BROADCAST = 0xffffffff;

const DISCOVER = 1;
const OFFER = 2;
const REQUEST = 3;
const ACK = 5;
const NAK = 6;
const INFORM = 8;

const OPT_PAD = 0;
const OPT_SUBNET_MASK = 1;
const OPT_ROUTER = 3;
const OPT_DNS = 6;
const OPT_REQUESTED_ADDRESS = 50;
const OPT_LEASE_TIME = 51;
const OPT_MESSAGE_TYPE = 53;
const OPT_SERVER_ID = 54;
const OPT_END = 255;

export interface DhcpOffer {
  readonly guest: number;
  readonly gateway: number;
  readonly dns: number;
  readonly netmask: number;
}

/** A datagram to port 67; `start` is where its payload begins. */
export function handleDhcp(packet: Ipv4Packet, start: number, offer: DhcpOffer, out: FrameWriter): void {
  const { bytes, end } = packet;
  if (end - start < OPTIONS_AT || bytes[start] !== BOOTREQUEST || bytes[start + 1] !== 1 || bytes[start + 2] !== 6)
    return;
  if (get32(bytes, start + FIXED_BYTES) !== COOKIE) return;
  const options = readOptions(bytes, start + OPTIONS_AT, end);
  const type = replyType(options, get32(bytes, start + 12), offer);
  if (type !== 0) reply(bytes.subarray(start, end), type, offer, out);
}

interface Options {
  type: number;
  requested: number;
  server: number;
}

/** Those that matter; one that runs over the end ends the reading. */
function readOptions(bytes: Uint8Array, at: number, end: number): Options {
  const options: Options = { type: 0, requested: 0, server: 0 };
  while (at < end && bytes[at] !== OPT_END) {
    if (bytes[at] === OPT_PAD) {
      at++;
      continue;
    }
    const lenBytes = at + 1 < end ? bytes[at + 1] : 0;
    const value = at + 2;
    if (value + lenBytes > end) break;
    if (bytes[at] === OPT_MESSAGE_TYPE && lenBytes === 1) options.type = bytes[value];
    if (bytes[at] === OPT_REQUESTED_ADDRESS && lenBytes === 4) options.requested = get32(bytes, value);
    if (bytes[at] === OPT_SERVER_ID && lenBytes === 4) options.server = get32(bytes, value);
    at = value + lenBytes;
  }
  return options;
}

/** 0: no reply. A request that names another server takes that one's offer. */
function replyType({ type, requested, server }: Options, ciaddr: number, { guest, gateway }: DhcpOffer): number {
  if (type === DISCOVER) return OFFER;
  if (type === INFORM) return ACK;
  if (type !== REQUEST || (server !== 0 && server !== gateway)) return 0;
  return (requested || ciaddr) === guest ? ACK : NAK;
}

function reply(request: Uint8Array, type: number, offer: DhcpOffer, out: FrameWriter): void {
  const at = PAYLOAD_AT + UDP_HEADER_BYTES;
  const { bytes } = out;
  bytes.fill(0, at, at + REPLY_BYTES);
  // Operation, hardware type and its length; then transaction, seconds and flags; client's address, and its hardware's.
  bytes.set(request.subarray(0, 12), at);
  bytes[at] = BOOTREPLY;
  const informed = get32(request, 12) !== 0 && type === ACK;
  if (informed) bytes.set(request.subarray(12, 16), at + 12);
  put32(bytes, at + 16, type === NAK ? 0 : offer.guest);
  put32(bytes, at + 20, offer.gateway);
  bytes.set(request.subarray(28, 44), at + 28);
  put32(bytes, at + FIXED_BYTES, COOKIE);
  putOptions(bytes, at + OPTIONS_AT, type, offer);
  putUdpHeader(bytes, DHCP_SERVER_PORT, DHCP_CLIENT_PORT, offer.gateway, BROADCAST, REPLY_BYTES);
  out.ipv4(IPPROTO_UDP, offer.gateway, BROADCAST, UDP_HEADER_BYTES + REPLY_BYTES);
}

function putOptions(bytes: Uint8Array, at: number, type: number, offer: DhcpOffer): void {
  const put = (option: number, value: number) => {
    bytes[at] = option;
    bytes[at + 1] = 4;
    put32(bytes, at + 2, value);
    at += 6;
  };
  bytes[at] = OPT_MESSAGE_TYPE;
  bytes[at + 1] = 1;
  bytes[at + 2] = type;
  at += 3;
  put(OPT_SERVER_ID, offer.gateway);
  if (type !== NAK) {
    put(OPT_LEASE_TIME, LEASE_SECONDS);
    put(OPT_SUBNET_MASK, offer.netmask);
    put(OPT_ROUTER, offer.gateway);
    put(OPT_DNS, offer.dns);
  }
  bytes[at] = OPT_END;
}
