import { type FileSystemBackend, FuseServer } from '../../src/machine/index.js';

/** The kernel's side of FUSE, as small as it can be: requests by code of its own, replies taken apart. */

export const ROOT = 1;
const OPCODES = {
  ...{
    lookup: 1,
    forget: 2,
    getattr: 3,
    setattr: 4,
    readlink: 5,
    symlink: 6,
    mknod: 8,
    mkdir: 9,
    unlink: 10,
    rmdir: 11,
  },
  ...{ rename: 12, link: 13, open: 14, read: 15, write: 16, statfs: 17, release: 18, fsync: 20, flush: 25, init: 26 },
  ...{ opendir: 27, readdir: 28, releasedir: 29, create: 35, destroy: 38, batchForget: 42, readdirplus: 44 },
};
export type Opcode = keyof typeof OPCODES;

/** Numbers are uint64; strings end in NUL; [n] is uint32. */
export type Field = number | bigint | string | [number] | Uint8Array;

export function encode(...fields: Field[]): Uint8Array {
  return Buffer.concat(
    fields.map((field) => {
      if (typeof field === 'string') return Buffer.from(`${field}\0`);
      if (field instanceof Uint8Array) return field;
      const bytes = Buffer.alloc(Array.isArray(field) ? 4 : 8);
      if (Array.isArray(field)) bytes.writeUInt32LE(field[0] >>> 0);
      else bytes.writeBigUInt64LE(BigInt(field));
      return bytes;
    }),
  );
}

export function request(opcode: number, nodeId: number | bigint, body: Uint8Array): Uint8Array {
  return encode([40 + body.length], [opcode], 99, nodeId, [0], [0], [1], [0], body);
}

export interface Attr {
  ino: bigint;
  size: number;
  mtime: number;
  mode: number;
  nlink: number;
  uid: number;
}

export class FuseError extends Error {
  readonly errno: number;

  constructor(opcode: string, errno: number) {
    super(`${opcode}: errno ${errno}`);
    this.errno = errno;
  }
}

export class FuseClient {
  readonly server: FuseServer;

  constructor(fs: FileSystemBackend) {
    this.server = new FuseServer(fs);
  }

  /** The reply's body; throws FuseError for an error. */
  async call(opcode: Opcode, nodeId: number, ...fields: Field[]): Promise<DataView> {
    const reply = await this.server.handle(request(OPCODES[opcode], nodeId, encode(...fields)), 200_000);
    if (reply === undefined) return new DataView(new ArrayBuffer(0));
    const view = new DataView(reply.buffer, reply.byteOffset, reply.length);
    if (view.getUint32(0, true) !== reply.length || view.getBigUint64(8, true) !== 99n)
      throw new Error('bad reply header');
    const errno = view.getInt32(4, true);
    if (errno !== 0) throw new FuseError(opcode, -errno);
    return new DataView(reply.buffer, reply.byteOffset + 16, reply.length - 16);
  }

  async init(): Promise<this> {
    const view = await this.call('init', 0, [7], [41], [131072], [0xffff_ffff], new Uint8Array(48));
    if (view.byteLength !== 64 || view.getUint32(0, true) !== 7) throw new Error('bad init');
    return this;
  }

  async lookup(parent: number, name: string): Promise<{ id: number; attr: Attr }> {
    return this.entry(await this.call('lookup', parent, name));
  }

  entry(view: DataView): { id: number; attr: Attr } {
    return { id: Number(view.getBigUint64(0, true)), attr: attrAt(view, 40) };
  }

  /** Looks a path up, name by name. */
  async walk(path: string): Promise<number> {
    let id = ROOT;
    for (const name of path.split('/').filter((part) => part !== '')) id = (await this.lookup(id, name)).id;
    return id;
  }

  async getattr(id: number): Promise<Attr> {
    return attrAt(await this.call('getattr', id, [0], [0], 0), 16);
  }

  async open(id: number, flags = 0): Promise<number> {
    return Number((await this.call('open', id, [flags], [0])).getBigUint64(0, true));
  }

  async create(parent: number, name: string, flags = 0o302, mode = 0o644): Promise<{ id: number; fh: number }> {
    const view = await this.call('create', parent, [flags], [mode], [0o22], [0], name);
    return { id: this.entry(view).id, fh: Number(view.getBigUint64(128, true)) };
  }

  async read(fh: number, offset: number, size: number): Promise<Buffer> {
    const view = await this.call('read', 0, fh, offset, [size], [0], 0, [0], [0]);
    return Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  }

  async write(fh: number, offset: number, data: Uint8Array): Promise<number> {
    const view = await this.call('write', 0, fh, offset, [data.length], [0], 0, [0], [0], data);
    return view.getUint32(0, true);
  }

  async release(fh: number): Promise<void> {
    await this.call('release', 0, fh, [0], [0], 0);
  }

  setattr(id: number, { mode, size, mtime }: { mode?: number; size?: number; mtime?: number }): Promise<DataView> {
    const valid = (mode === undefined ? 0 : 1) | (size === undefined ? 0 : 8) | (mtime === undefined ? 0 : 32);
    const fields: Field[] = [
      [valid],
      [0],
      0,
      size ?? 0,
      0,
      0,
      mtime ?? 0,
      0,
      [0],
      [0],
      [0],
      [mode ?? 0],
      [0],
      [0],
      [0],
      [0],
    ];
    return this.call('setattr', id, ...fields);
  }

  /** All names of a folder, read in replies of `size` bytes. */
  async list(id: number, { size = 4096, plus = false } = {}): Promise<{ name: string; ino: bigint; id: number }[]> {
    const fh = Number((await this.call('opendir', id, [0], [0])).getBigUint64(0, true));
    const found: { name: string; ino: bigint; id: number }[] = [];
    for (let offset = 0n; ; ) {
      const op = plus ? 'readdirplus' : 'readdir';
      const view = await this.call(op, id, fh, offset, [size], [0], 0, [0], [0]);
      if (view.byteLength === 0) break;
      for (let at = 0; at < view.byteLength; ) {
        const entryId = plus ? Number(view.getBigUint64(at, true)) : 0;
        if (plus) at += 128;
        offset = view.getBigUint64(at + 8, true);
        const lenBytes = view.getUint32(at + 16, true);
        const name = Buffer.from(view.buffer, view.byteOffset + at + 24, lenBytes).toString();
        found.push({ name, ino: view.getBigUint64(at, true), id: entryId });
        at += (24 + lenBytes + 7) & ~7;
      }
    }
    await this.call('releasedir', id, fh, [0], [0], 0);
    return found;
  }
}

function attrAt(view: DataView, at: number): Attr {
  return {
    ino: view.getBigUint64(at, true),
    size: Number(view.getBigUint64(at + 8, true)),
    mtime: Number(view.getBigInt64(at + 32, true)),
    mode: view.getUint32(at + 60, true),
    nlink: view.getUint32(at + 64, true),
    uid: view.getUint32(at + 68, true),
  };
}
