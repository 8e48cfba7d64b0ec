import type { FileSystemBackend, HostDirectoryEntry, HostNode } from './filesystem.js';
import { HandleTable, NodeTable, type OpenDirectory } from './nodes.js';
import * as P from './protocol.js';
import { FuseError, FuseReader, FuseWriter } from './protocol.js';
import { putAttrOut, putEntry, putOpenOut, readChanges } from './structs.js';

/**
 * A FUSE server: a guest's requests about files, answered from a FileSystemBackend.
 *
 * A request is bytes of the guest, and may be anything: it gets an error, and nothing else happens. Nodes, open files and the length of
 * an answer are bounded. What the server does not know is ENOSYS, upon which Linux does without (locks, extended attributes, access,
 * lseek, fallocate). The guest believes what it knows of a file for a second, then asks again, so that changes on the host are seen.
 *
 * Use: `handle(request, replyBytes)` for each request, also several at a time; `close` when the guest is gone.
 */

/** The most bytes of one read or write: 32 pages. */
export const MAX_TRANSFER = 128 * 1024;
const MAX_TRANSFER_PAGES = 32;
/** Longest request: a write with its headers. */
export const MAX_REQUEST = MAX_TRANSFER + 4096;
/** What a name in a listing is worth for whom its number is not known (libfuse: FUSE_UNKNOWN_INO). */
const UNKNOWN_INO = 0xffffffff;
const DT_DIR = 4;
const DIRENT_BYTES = 24;
const ENTRY_BYTES = 40 + P.ATTR_BYTES;
const DOT = Uint8Array.of(0x2e);
const DOTDOT = Uint8Array.of(0x2e, 0x2e);

interface Request {
  readonly in: FuseReader;
  readonly out: FuseWriter;
  /** Identity of the node that it is about. */
  readonly nodeId: number;
}

type Handler = (request: Request) => Promise<void> | void;

export class FuseServer {
  readonly nodes: NodeTable;
  readonly handles = new HandleTable();
  private readonly fs: FileSystemBackend;
  private readonly handlers: ReadonlyMap<number, Handler>;
  private initialised = false;

  constructor(fs: FileSystemBackend) {
    this.fs = fs;
    this.nodes = new NodeTable(fs);
    this.handlers = new Map(this.operations());
  }

  /** The reply, or undefined where none is sent. Never rejects. */
  async handle(bytes: Uint8Array, replyBytes: number): Promise<Uint8Array | undefined> {
    if (bytes.length < P.IN_HEADER_BYTES) return undefined;
    const head = new FuseReader(bytes, 0);
    const lenBytes = head.u32();
    const opcode = head.u32();
    const unique = head.u64();
    if (opcode === P.FUSE_FORGET || opcode === P.FUSE_BATCH_FORGET) return this.forget(bytes, opcode);
    if (opcode === P.FUSE_INTERRUPT || replyBytes < P.OUT_HEADER_BYTES) return undefined;
    const out = new FuseWriter(Math.min(replyBytes, MAX_REQUEST));
    try {
      if (lenBytes !== bytes.length) throw new FuseError('EINVAL');
      if (!this.initialised && opcode !== P.FUSE_INIT) throw new FuseError('EPROTO');
      const handler = this.handlers.get(opcode);
      if (handler === undefined) throw new FuseError('ENOSYS');
      await handler({ in: new FuseReader(bytes, P.IN_HEADER_BYTES), out, nodeId: head.number64() });
      return out.finish(unique);
    } catch (error) {
      return out.finish(unique, errnoOf(error));
    }
  }

  /** The guest is gone. What is under way ends by itself. */
  async close(): Promise<void> {
    this.nodes.close();
    await this.handles.close();
  }

  private operations(): [number, Handler][] {
    return [
      [P.FUSE_INIT, (r) => this.init(r)],
      [P.FUSE_DESTROY, () => {}],
      [P.FUSE_LOOKUP, (r) => this.entry(r, r.in.name())],
      [P.FUSE_GETATTR, (r) => this.getattr(r)],
      [P.FUSE_SETATTR, (r) => this.setattr(r)],
      [P.FUSE_READLINK, async (r) => r.out.put(await this.fs.readlink(this.node(r)))],
      [P.FUSE_SYMLINK, (r) => this.symlink(r)],
      [P.FUSE_MKNOD, (r) => this.mknod(r)],
      [P.FUSE_MKDIR, (r) => this.mkdir(r)],
      [P.FUSE_UNLINK, (r) => this.fs.unlink(this.node(r), r.in.name())],
      [P.FUSE_RMDIR, (r) => this.fs.rmdir(this.node(r), r.in.name())],
      [P.FUSE_RENAME, (r) => this.rename(r, r.in.number64())],
      [P.FUSE_RENAME2, (r) => this.rename2(r)],
      [P.FUSE_LINK, (r) => this.link(r)],
      [P.FUSE_OPEN, (r) => this.open(r)],
      [P.FUSE_CREATE, (r) => this.create(r)],
      [P.FUSE_READ, (r) => this.read(r)],
      [P.FUSE_WRITE, (r) => this.write(r)],
      [P.FUSE_FLUSH, () => {}],
      [P.FUSE_FSYNC, (r) => this.fsync(r)],
      [P.FUSE_RELEASE, (r) => this.handles.release(r.in.number64())],
      [P.FUSE_OPENDIR, (r) => this.opendir(r)],
      [P.FUSE_READDIR, (r) => this.readdir(r, false)],
      [P.FUSE_READDIRPLUS, (r) => this.readdir(r, true)],
      [P.FUSE_FSYNCDIR, () => {}],
      [P.FUSE_RELEASEDIR, (r) => this.handles.release(r.in.number64())],
      [P.FUSE_STATFS, (r) => this.statfs(r)],
    ];
  }

  private node({ nodeId }: Request): HostNode {
    return this.nodes.get(nodeId);
  }

  private init({ in: input, out }: Request): void {
    const major = input.u32();
    const minor = input.u32();
    const readahead = input.u32();
    const flags = input.u32();
    if (major !== P.FUSE_KERNEL_VERSION || minor < P.FUSE_MIN_MINOR_VERSION) throw new FuseError('EPROTO');
    const wanted =
      P.FUSE_ASYNC_READ |
      P.FUSE_BIG_WRITES |
      P.FUSE_DO_READDIRPLUS |
      P.FUSE_READDIRPLUS_AUTO |
      P.FUSE_PARALLEL_DIROPS |
      P.FUSE_MAX_PAGES;
    this.initialised = true;
    const words = [major, P.FUSE_KERNEL_MINOR_VERSION, Math.min(readahead, MAX_TRANSFER), flags & wanted];
    // max_background and congestion_threshold, max_write, time_gran, max_pages and map_alignment, flags2, unused.
    words.push(16 | (12 << 16), MAX_TRANSFER, 1, MAX_TRANSFER_PAGES, 0, 0, 0, 0, 0, 0, 0, 0);
    for (const word of words) out.u32(word);
  }

  /** FORGET and BATCH_FORGET have no reply; a list that is cut short counts as far as it goes. */
  private forget(bytes: Uint8Array, opcode: number): undefined {
    try {
      const input = new FuseReader(bytes, 16);
      const nodeId = input.number64();
      input.skip(16);
      if (opcode === P.FUSE_FORGET) return void this.nodes.forget(nodeId, input.u64());
      const nr = input.u32();
      input.skip(4);
      for (let i = 0; i < nr; i++) this.nodes.forget(input.number64(), input.u64());
    } catch {
      // What the guest did not say is not forgotten.
    }
    return undefined;
  }

  /** Looks a name up, and tells of it: the answer of LOOKUP and of all that makes a node. */
  private async entry(request: Request, name: Uint8Array): Promise<void> {
    const { node, attributes } = await this.fs.lookup(this.node(request), name);
    putEntry(request.out, this.nodes.add(node), attributes);
  }

  private async getattr(request: Request): Promise<void> {
    const byHandle = (request.in.u32() & P.FUSE_GETATTR_FH) !== 0;
    request.in.skip(4);
    const fh = request.in.number64();
    const attributes = byHandle ? this.handles.file(fh).attributes() : await this.fs.attributes(this.node(request));
    putAttrOut(request.out, attributes);
  }

  private async setattr(request: Request): Promise<void> {
    const node = this.node(request);
    const { valid, fh, changes } = readChanges(request.in);
    if (changes.size !== undefined && (valid & P.FATTR_FH) !== 0) {
      await this.handles.file(fh).truncate(changes.size);
      delete changes.size;
    }
    await this.fs.setAttributes(node, changes);
    putAttrOut(request.out, await this.fs.attributes(node));
  }

  private async symlink(request: Request): Promise<void> {
    const name = request.in.name();
    await this.fs.symlink(this.node(request), name, request.in.text());
    await this.entry(request, name);
  }

  /** Regular files alone: nobody makes device nodes, pipes and sockets on the host. */
  private async mknod(request: Request): Promise<void> {
    const mode = request.in.u32();
    request.in.skip(12);
    const name = request.in.name();
    if ((mode & P.S_IFMT) !== P.S_IFREG) throw new FuseError('EPERM');
    const file = await this.fs.create(this.node(request), name, 1, mode, true);
    await file.close();
    await this.entry(request, name);
  }

  private async mkdir(request: Request): Promise<void> {
    const mode = request.in.u32();
    request.in.skip(4);
    const name = request.in.name();
    await this.fs.mkdir(this.node(request), name, mode);
    await this.entry(request, name);
  }

  private rename(request: Request, toId: number): Promise<void> {
    const fromName = request.in.name();
    return this.fs.rename(this.node(request), fromName, this.nodes.get(toId), request.in.name());
  }

  /** Exchange and no-replace cannot be had of Node: EINVAL, as a file system says that has neither. */
  private rename2(request: Request): Promise<void> {
    const toId = request.in.number64();
    const flags = request.in.u32();
    request.in.skip(4);
    if (flags !== 0) throw new FuseError('EINVAL');
    return this.rename(request, toId);
  }

  private async link(request: Request): Promise<void> {
    const node = this.nodes.get(request.in.number64());
    const name = request.in.name();
    await this.fs.link(node, this.node(request), name);
    await this.entry(request, name);
  }

  private async open(request: Request): Promise<void> {
    const flags = request.in.u32();
    this.handles.checkRoom();
    const file = await this.fs.open(this.node(request), flags & P.O_ACCMODE);
    putOpenOut(request.out, await this.handles.add({ file }));
  }

  private async create(request: Request): Promise<void> {
    const flags = request.in.u32();
    const mode = request.in.u32();
    request.in.skip(8);
    const name = request.in.name();
    this.handles.checkRoom();
    const parent = this.node(request);
    const file = await this.fs.create(parent, name, flags & P.O_ACCMODE, mode, (flags & P.O_EXCL) !== 0);
    const fh = await this.handles.add({ file });
    try {
      await this.entry(request, name);
    } catch (error) {
      await this.handles.release(fh);
      throw error;
    }
    putOpenOut(request.out, fh);
  }

  private async read({ in: input, out }: Request): Promise<void> {
    const file = this.handles.file(input.number64());
    const offset = input.number64();
    const size = Math.min(input.u32(), MAX_TRANSFER, out.room);
    const read = await file.read(out.place(size), offset);
    out.trim(size - read);
  }

  private async write({ in: input, out }: Request): Promise<void> {
    const file = this.handles.file(input.number64());
    const offset = input.number64();
    const size = input.u32();
    input.skip(20);
    out.u32(await file.write(input.data(size), offset));
    out.u32(0);
  }

  private async fsync({ in: input }: Request): Promise<void> {
    const file = this.handles.file(input.number64());
    await file.sync((input.u32() & 1) !== 0);
  }

  private async opendir(request: Request): Promise<void> {
    this.handles.checkRoom();
    const node = this.node(request);
    const directory = await this.fs.openDirectory(node);
    const open: OpenDirectory = { node, directory, position: 0, turn: Promise.resolve() };
    putOpenOut(request.out, await this.handles.add({ directory: open }));
  }

  private readdir({ in: input, out }: Request, plus: boolean): Promise<void> {
    const open = this.handles.directory(input.number64());
    const offset = input.number64();
    const end = out.lenBytes + Math.min(input.u32(), MAX_TRANSFER, out.room);
    const turn = open.turn.then(() => this.list(open, offset, end, out, plus));
    open.turn = turn.catch(() => {});
    return turn;
  }

  private async list(open: OpenDirectory, offset: number, end: number, out: FuseWriter, plus: boolean): Promise<void> {
    if (offset < open.position) {
      await open.directory.rewind();
      open.position = 0;
      open.pending = undefined;
    }
    for (;;) {
      const entry = (open.pending ??= await nextEntry(open));
      if (entry === undefined) return;
      if (open.position >= offset) {
        const lenBytes = (plus ? ENTRY_BYTES : 0) + DIRENT_BYTES + entry.name.length;
        if (out.lenBytes + ((lenBytes + 7) & ~7) > end) return;
        await this.putListed(open, entry, out, plus);
      }
      open.position++;
      open.pending = undefined;
    }
  }

  private async putListed(
    open: OpenDirectory,
    entry: HostDirectoryEntry,
    out: FuseWriter,
    plus: boolean,
  ): Promise<void> {
    const ino = plus ? await this.putPlus(open, entry, out) : BigInt(UNKNOWN_INO);
    out.u64(ino);
    out.u64(open.position + 1);
    out.u32(entry.name.length);
    out.u32(entry.type);
    out.put(entry.name);
    out.pad();
  }

  /** A name that is gone meanwhile, and the dots, are listed without a node. */
  private async putPlus(open: OpenDirectory, { name }: HostDirectoryEntry, out: FuseWriter): Promise<bigint> {
    if (open.position >= 2) {
      try {
        const { node, attributes } = await this.fs.lookup(open.node, name);
        putEntry(out, this.nodes.add(node), attributes);
        return attributes.ino;
      } catch {
        // As below.
      }
    }
    out.place(ENTRY_BYTES).fill(0);
    return BigInt(UNKNOWN_INO);
  }

  private async statfs({ out }: Request): Promise<void> {
    const space = await this.fs.space();
    for (const value of [space.blocks, space.bfree, space.bavail, space.files, space.ffree]) out.u64(value);
    for (const word of [space.bsize, 255, space.bsize, 0, 0, 0, 0, 0, 0, 0]) out.u32(word);
  }
}

async function nextEntry(open: OpenDirectory): Promise<HostDirectoryEntry | undefined> {
  if (open.position < 2) return { name: open.position === 0 ? DOT : DOTDOT, type: DT_DIR };
  return open.directory.next();
}

/** Linux's number of an error of the host; EIO for one that has none. */
function errnoOf(error: unknown): number {
  const errno = Math.abs((error as { errno?: number } | undefined)?.errno ?? 0);
  return Number.isInteger(errno) && errno > 0 && errno < 512 ? errno : P.FUSE_ERRNO.EIO;
}
