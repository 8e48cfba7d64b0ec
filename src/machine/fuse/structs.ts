import type { HostAttributes, HostChanges } from './filesystem.js';
import * as P from './protocol.js';
import { FuseError, type FuseReader, type FuseWriter } from './protocol.js';

/** The structures of FUSE's messages that several requests share. */

/** The guest believes what it was told for so long. */
const VALID_SECONDS = 1;

/** struct fuse_setattr_in. */
export function readChanges(input: FuseReader): { valid: number; fh: number; changes: HostChanges } {
  const valid = input.u32();
  input.skip(4);
  const fh = input.u64();
  const size = input.u64();
  input.skip(8);
  const seconds = [input.u64(), input.u64(), input.u64()].map((value) => Number(BigInt.asIntN(64, value)));
  const nanoseconds = [input.u32(), input.u32(), input.u32()];
  const mode = input.u32();
  input.skip(4);
  const uid = input.u32();
  const gid = input.u32();
  const has = (bit: number) => (valid & bit) !== 0;
  const time = (i: number, set: number, now: number) =>
    has(now) ? ('now' as const) : has(set) ? seconds[i] + nanoseconds[i] / 1e9 : undefined;
  const atime = time(0, P.FATTR_ATIME, P.FATTR_ATIME_NOW);
  const mtime = time(1, P.FATTR_MTIME, P.FATTR_MTIME_NOW);
  if (has(P.FATTR_SIZE) && size > BigInt(Number.MAX_SAFE_INTEGER)) throw new FuseError('EINVAL');
  const changes: HostChanges = {
    ...(has(P.FATTR_MODE) && { mode }),
    ...(has(P.FATTR_UID) && { uid }),
    ...(has(P.FATTR_GID) && { gid }),
    ...(has(P.FATTR_SIZE) && { size: Number(size) }),
    ...(atime !== undefined && { atime }),
    ...(mtime !== undefined && { mtime }),
  };
  return { valid, fh: Number(fh), changes };
}

export function putEntry(out: FuseWriter, nodeId: number, attributes: HostAttributes): void {
  out.u64(nodeId);
  out.u64(0); // generation: identities are not used again
  out.u64(VALID_SECONDS);
  out.u64(VALID_SECONDS);
  out.u64(0);
  putAttributes(out, attributes);
}

export function putAttrOut(out: FuseWriter, attributes: HostAttributes): void {
  out.u64(VALID_SECONDS);
  out.u64(0);
  putAttributes(out, attributes);
}

const NS = 1_000_000_000n;

/** struct fuse_attr. */
function putAttributes(out: FuseWriter, a: HostAttributes): void {
  const times = [a.atimeNs, a.mtimeNs, a.ctimeNs];
  const nanoseconds = times.map((ns) => ((ns % NS) + NS) % NS);
  for (const value of [a.ino, a.size, a.blocks]) out.u64(value);
  times.forEach((ns, i) => {
    out.u64((ns - nanoseconds[i]) / NS);
  });
  for (const ns of nanoseconds) out.u32(Number(ns));
  for (const word of [a.mode, a.nlink, a.uid, a.gid, a.rdev, a.blksize, 0]) out.u32(word);
}

export function putOpenOut(out: FuseWriter, fh: number): void {
  out.u64(fh);
  out.u64(0);
}
