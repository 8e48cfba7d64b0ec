import { KernelError } from '../../base/index.js';
import {
  type Host,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  type Mm,
  PROT_READ,
  PROT_WRITE,
} from '../../mm/index.js';
import { nodeRdmaEnvironment } from '../../node/index.js';
import { type Context, type Device, openDevice, type ProtectionDomain } from '../../rdma/index.js';

/**
 * What `unpin rdma server` and `client` agree on. The server accepts with private data that name its region; after that the client reads and writes it without
 * the server's help. A message (SEND) of up to ECHO_BYTES comes back as it went: `ping`.
 */

/** Where the server's memory is, and the key to it. */
export interface ServedRegion {
  readonly addr: number;
  readonly length: number;
  readonly rkey: number;
}

export const ECHO_BYTES = 64;
/** Receives that the server keeps posted: pings that a client may have under way. */
export const ECHO_DEPTH = 16;
/** Arena of a host memory for a NIC, besides what its regions need. */
const ARENA_BASE = 24 * 2 ** 20;

const MAGIC = 'unpin 1\0';
const REGION_BYTES = 28;

/** The magic, address and length (u64), key (u32); big-endian. */
export function encodeRegion({ addr, length, rkey }: ServedRegion): Uint8Array {
  const bytes = Buffer.alloc(REGION_BYTES);
  bytes.write(MAGIC, 'latin1');
  bytes.writeBigUInt64BE(BigInt(addr), 8);
  bytes.writeBigUInt64BE(BigInt(length), 16);
  bytes.writeUInt32BE(rkey, 24);
  return bytes;
}

/** Throws KernelError EPROTO: the peer is no `unpin rdma server`. */
export function decodeRegion(privateData: Uint8Array): ServedRegion {
  const bytes = Buffer.from(privateData);
  if (bytes.length < REGION_BYTES || bytes.toString('latin1', 0, 8) !== MAGIC) {
    const what = `the peer's private data (${bytes.length} bytes) must name a region, as unpin rdma server's do`;
    throw new KernelError('EPROTO', 'connect', what);
  }
  const [addr, length] = [Number(bytes.readBigUInt64BE(8)), Number(bytes.readBigUInt64BE(16))];
  return { addr, length, rkey: bytes.readUInt32BE(24) };
}

/** Bytes of arena for a NIC with regions of `regionBytes` in all. */
export function arenaBytes(regionBytes: number): number {
  return ARENA_BASE + Math.ceil(regionBytes / 512);
}

/** A NIC in a thread of its own, with one user of it. */
export interface Rnic {
  readonly mm: Mm;
  readonly device: Device;
  readonly context: Context;
  readonly pd: ProtectionDomain;
}

export function openRnic(host: Host, name: string, rlimitMemlock?: number, env = nodeRdmaEnvironment()): Rnic {
  const mm = host.createMm({ name, ...(rlimitMemlock === undefined ? {} : { rlimitMemlock }) });
  const device = openDevice(host, env);
  const context = device.openContext(mm);
  return { mm, device, context, pd: context.allocPd() };
}

/** Memory that takes frames as it is touched. */
export function mapMemory(mm: Mm, lenBytes: number): number {
  return mm.mmap(0, lenBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
}
