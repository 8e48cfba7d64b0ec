/**
 * Frames as a guest writes and reads them, by code of its own: what the network sends is checked here to the last byte
 * (lengths and checksums), and throws where it is wrong.
 */

export const GUEST_MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
export const GATEWAY_MAC = [0x52, 0x55, 0x0a, 0, 2, 2];
export const GUEST = [10, 0, 2, 15];
export const GATEWAY = [10, 0, 2, 2];
export const DNS = [10, 0, 2, 3];

export function checksum(bytes: number[] | Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i] * 256 + (bytes[i + 1] ?? 0);
    if (sum > 65535) sum -= 65535;
  }
  return 65535 - sum;
}

export function be16(value: number): number[] {
  return [(value >> 8) & 255, value & 255];
}

export function be32(value: number): number[] {
  return [...be16(value >>> 16), ...be16(value & 0xffff)];
}

export interface IpFields {
  src?: number[];
  dst?: number[];
  protocol: number;
  payload: number[] | Uint8Array;
}

/** An Ethernet frame with an IPv4 packet. */
export function ipFrame({ src = GUEST, dst = GATEWAY, protocol, payload }: IpFields): Uint8Array {
  const header = [0x45, 0, ...be16(20 + payload.length), 0, 1, 0, 0, 64, protocol, 0, 0, ...src, ...dst];
  header.splice(10, 2, ...be16(checksum(header)));
  return Uint8Array.from([...GATEWAY_MAC, ...GUEST_MAC, 8, 0, ...header, ...payload]);
}

function transport(fields: IpFields, checksumAt: number): Uint8Array {
  const { src = GUEST, dst = GATEWAY, protocol } = fields;
  const payload = [...fields.payload];
  const sum = checksum([...src, ...dst, 0, protocol, ...be16(payload.length), ...payload]);
  payload.splice(checksumAt, 2, ...be16(sum));
  return ipFrame({ ...fields, payload });
}

export function udpFrame(
  srcPort: number,
  dstPort: number,
  payload: number[] | Uint8Array,
  { src = GUEST, dst = GATEWAY } = {},
): Uint8Array {
  const datagram = [...be16(srcPort), ...be16(dstPort), ...be16(8 + payload.length), 0, 0, ...payload];
  return transport({ src, dst, protocol: 17, payload: datagram }, 6);
}

export interface TcpFields {
  srcPort: number;
  dstPort: number;
  seq: number;
  ack?: number;
  flags: number;
  window?: number;
  options?: number[];
  data?: Uint8Array | number[];
  dst?: number[];
}

export function tcpFrame(fields: TcpFields): Uint8Array {
  const { srcPort, dstPort, seq, ack = 0, flags, window = 65535, options = [], data = [], dst = GATEWAY } = fields;
  const payload = [
    ...be16(srcPort),
    ...be16(dstPort),
    ...be32(seq),
    ...be32(ack),
    ((20 + options.length) / 4) << 4,
    flags,
    ...be16(window),
    0,
    0,
    0,
    0,
    ...options,
    ...data,
  ];
  return transport({ dst, protocol: 6, payload }, 16);
}

export interface IpPacket {
  src: number[];
  dst: number[];
  protocol: number;
  payload: Uint8Array;
}

export function readIp(frame: Uint8Array): IpPacket {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame.length > 1514) throw new Error(`frame of ${frame.length} bytes`);
  if (view.getUint16(12) !== 0x0800) throw new Error('not IPv4');
  if (frame[14] !== 0x45 || view.getUint16(16) !== frame.length - 14) throw new Error('bad IPv4 header');
  if (checksum(frame.slice(14, 34)) !== 0) throw new Error('bad IPv4 checksum');
  const packet = { src: [...frame.slice(26, 30)], dst: [...frame.slice(30, 34)], protocol: frame[23] };
  const payload = frame.slice(34);
  if (packet.protocol !== 1) {
    const pseudo = [...packet.src, ...packet.dst, 0, packet.protocol, ...be16(payload.length)];
    if (checksum([...pseudo, ...payload]) !== 0) throw new Error('bad transport checksum');
  } else if (checksum(payload) !== 0) throw new Error('bad ICMP checksum');
  return { ...packet, payload };
}

export interface TcpFromNet {
  srcPort: number;
  dstPort: number;
  seq: number;
  ack: number;
  flags: number;
  window: number;
  options: number[];
  data: Uint8Array;
}

export function readTcp(frame: Uint8Array): TcpFromNet {
  const { payload, protocol } = readIp(frame);
  if (protocol !== 6) throw new Error('not TCP');
  const view = new DataView(payload.buffer);
  const header = (payload[12] >> 4) * 4;
  return {
    srcPort: view.getUint16(0),
    dstPort: view.getUint16(2),
    seq: view.getUint32(4),
    ack: view.getUint32(8),
    flags: payload[13],
    window: view.getUint16(14),
    options: [...payload.slice(20, header)],
    data: payload.slice(header),
  };
}

export function readUdp(frame: Uint8Array): { src: number[]; srcPort: number; dstPort: number; data: Uint8Array } {
  const { payload, protocol, src } = readIp(frame);
  if (protocol !== 17) throw new Error('not UDP');
  const view = new DataView(payload.buffer);
  if (view.getUint16(4) !== payload.length) throw new Error('bad UDP length');
  return { src, srcPort: view.getUint16(0), dstPort: view.getUint16(2), data: payload.slice(8) };
}
