/**
 * FUSE's messages: numbers, a reader of requests that believes no length, and a writer of replies.
 *
 * Everything is little-endian, as the guest is. A request that is too short throws FuseError EINVAL, which is its answer.
 *
 * Source: Linux, include/uapi/linux/fuse.h (protocol 7.31 and the fields that later ones left alone).
 */

export const FUSE_KERNEL_VERSION = 7;
/** The newest whose structures are the ones here. */
export const FUSE_KERNEL_MINOR_VERSION = 31;
export const FUSE_MIN_MINOR_VERSION = 28;
export const FUSE_ROOT_ID = 1;
export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
export const ATTR_BYTES = 88;

export const FUSE_LOOKUP = 1;
export const FUSE_FORGET = 2;
export const FUSE_GETATTR = 3;
export const FUSE_SETATTR = 4;
export const FUSE_READLINK = 5;
export const FUSE_SYMLINK = 6;
export const FUSE_MKNOD = 8;
export const FUSE_MKDIR = 9;
export const FUSE_UNLINK = 10;
export const FUSE_RMDIR = 11;
export const FUSE_RENAME = 12;
export const FUSE_LINK = 13;
export const FUSE_OPEN = 14;
export const FUSE_READ = 15;
export const FUSE_WRITE = 16;
export const FUSE_STATFS = 17;
export const FUSE_RELEASE = 18;
export const FUSE_FSYNC = 20;
export const FUSE_FLUSH = 25;
export const FUSE_INIT = 26;
export const FUSE_OPENDIR = 27;
export const FUSE_READDIR = 28;
export const FUSE_RELEASEDIR = 29;
export const FUSE_FSYNCDIR = 30;
export const FUSE_CREATE = 35;
export const FUSE_INTERRUPT = 36;
export const FUSE_DESTROY = 38;
export const FUSE_BATCH_FORGET = 42;
export const FUSE_READDIRPLUS = 44;
export const FUSE_RENAME2 = 45;

export const FUSE_ASYNC_READ = 1 << 0;
export const FUSE_BIG_WRITES = 1 << 5;
export const FUSE_DO_READDIRPLUS = 1 << 13;
export const FUSE_READDIRPLUS_AUTO = 1 << 14;
export const FUSE_PARALLEL_DIROPS = 1 << 18;
export const FUSE_MAX_PAGES = 1 << 22;

export const FUSE_GETATTR_FH = 1;
export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_FH = 1 << 6;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;

export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const O_ACCMODE = 3;
export const O_EXCL = 0o200;

/** The errors a server says by itself (asm-generic/errno-base.h, errno.h). */
export const FUSE_ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EBADF: 9,
  EINVAL: 22,
  ENFILE: 23,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  EPROTO: 71,
};

export class FuseError extends Error {
  readonly errno: number;

  constructor(name: keyof typeof FUSE_ERRNO) {
    super(name);
    this.errno = FUSE_ERRNO[name];
  }
}

const NAME_MAX = 255;
const DOT = 0x2e;
const SLASH = 0x2f;

/** Reads a request from its header's end on. */
export class FuseReader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.at = at;
  }

  private take(lenBytes: number): number {
    const at = this.at;
    if (lenBytes > this.bytes.length - at) throw new FuseError('EINVAL');
    this.at = at + lenBytes;
    return at;
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  u64(): bigint {
    return this.view.getBigUint64(this.take(8), true);
  }

  /** A number that has no business above 2^53: identities, offsets, sizes. */
  number64(): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new FuseError('EINVAL');
    return Number(value);
  }

  skip(lenBytes: number): void {
    this.take(lenBytes);
  }

  data(lenBytes: number): Uint8Array {
    const at = this.take(lenBytes);
    return this.bytes.subarray(at, at + lenBytes);
  }

  /** Up to the next NUL, which must be there. */
  text(): Uint8Array {
    const end = this.bytes.indexOf(0, this.at);
    if (end < 0) throw new FuseError('EINVAL');
    const text = this.bytes.subarray(this.at, end);
    this.at = end + 1;
    return text;
  }

  /** One name of a folder: this is where a path could climb out, and cannot. */
  name(): Uint8Array {
    const name = this.text();
    if (name.length > NAME_MAX) throw new FuseError('ENAMETOOLONG');
    const dots = name.every((byte) => byte === DOT) && name.length <= 2;
    if (dots || name.includes(SLASH)) throw new FuseError('EINVAL');
    return name;
  }
}

/** Writes a reply behind the room for its header; grows up to `maxBytes`. */
export class FuseWriter {
  private bytes: Uint8Array;
  private view: DataView;
  private readonly maxBytes: number;
  lenBytes = OUT_HEADER_BYTES;

  constructor(maxBytes: number, expectedBytes = 256) {
    this.maxBytes = maxBytes;
    this.bytes = new Uint8Array(Math.max(Math.min(expectedBytes, maxBytes), OUT_HEADER_BYTES));
    this.view = new DataView(this.bytes.buffer);
  }

  /** Room that is left for the guest's buffer. */
  get room(): number {
    return this.maxBytes - this.lenBytes;
  }

  private reserve(lenBytes: number): number {
    const at = this.lenBytes;
    if (lenBytes > this.room) throw new FuseError('EINVAL');
    if (at + lenBytes > this.bytes.length) this.growTo(at + lenBytes);
    this.lenBytes = at + lenBytes;
    return at;
  }

  private growTo(lenBytes: number): void {
    const grown = new Uint8Array(Math.min(Math.max(lenBytes, this.bytes.length * 2), this.maxBytes));
    grown.set(this.bytes);
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }

  u32(value: number): void {
    const at = this.reserve(4); // first: the view may be another afterwards
    this.view.setUint32(at, value, true);
  }

  u64(value: bigint | number): void {
    const at = this.reserve(8);
    this.view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
  }

  put(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** Zeroes up to the next multiple of 8. */
  pad(): void {
    const lenBytes = -this.lenBytes & 7;
    const at = this.reserve(lenBytes);
    this.bytes.fill(0, at, this.lenBytes);
  }

  /** A place of `lenBytes` to be filled by others; `trim` gives back what they left. */
  place(lenBytes: number): Uint8Array {
    const at = this.reserve(lenBytes);
    return this.bytes.subarray(at, at + lenBytes);
  }

  trim(lenBytes: number): void {
    this.lenBytes -= lenBytes;
  }

  /** Back to where `lenBytes` was before. */
  rewindTo(lenBytes: number): void {
    this.lenBytes = lenBytes;
  }

  /** The reply: `errno` is 0, or positive, and then there is nothing but the header. */
  finish(unique: bigint, errno = 0): Uint8Array {
    if (errno !== 0) this.lenBytes = OUT_HEADER_BYTES;
    this.view.setUint32(0, this.lenBytes, true);
    this.view.setInt32(4, -errno, true);
    this.view.setBigUint64(8, unique, true);
    return this.bytes.subarray(0, this.lenBytes);
  }
}
