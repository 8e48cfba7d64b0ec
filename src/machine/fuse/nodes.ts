import type { FileSystemBackend, HostDirectory, HostDirectoryEntry, HostFile, HostNode } from './filesystem.js';
import { FUSE_ROOT_ID, FuseError } from './protocol.js';

/**
 * What a guest knows of a shared folder: nodes by their identity, with the number of times it was told of each, and what it has open.
 * Both are bounded. Identities are never used again, so that a stale one is an error and nothing else.
 */

export const MAX_NODES = 2 ** 18;
export const MAX_HANDLES = 1024;

interface Known {
  readonly id: number;
  readonly node: HostNode;
  nrLookups: bigint;
}

export class NodeTable {
  private readonly byId = new Map<number, Known>();
  private readonly byNode = new Map<HostNode, Known>();
  private readonly fs: FileSystemBackend;
  private nextId = FUSE_ROOT_ID + 1;
  private closed = false;

  constructor(fs: FileSystemBackend) {
    this.fs = fs;
  }

  get size(): number {
    return this.byId.size;
  }

  /** Throws ENOENT for an identity that the guest was not told, or has forgotten. */
  get(id: number): HostNode {
    if (id === FUSE_ROOT_ID) return this.fs.root;
    const known = this.byId.get(id);
    if (known === undefined) throw new FuseError('ENOENT');
    return known.node;
  }

  /** The identity of a node that was just looked up; the guest is told of it once more. Throws ENFILE, and forgets it, at MAX_NODES. */
  add(node: HostNode): number {
    if (node === this.fs.root) return FUSE_ROOT_ID;
    const known = this.byNode.get(node);
    if (known !== undefined) {
      known.nrLookups++;
      this.fs.forget(node);
      return known.id;
    }
    if (this.closed || this.byId.size >= MAX_NODES) {
      this.fs.forget(node);
      throw new FuseError('ENFILE');
    }
    const id = this.nextId++;
    const made = { id, node, nrLookups: 1n };
    this.byId.set(id, made);
    this.byNode.set(node, made);
    return id;
  }

  /** The guest forgets `nrLookups` tellings; more than there were are as many as there were. */
  forget(id: number, nrLookups: bigint): void {
    const known = this.byId.get(id);
    if (known === undefined) return;
    known.nrLookups -= nrLookups;
    if (known.nrLookups > 0n) return;
    this.byId.delete(id);
    this.byNode.delete(known.node);
    this.fs.forget(known.node);
  }

  /** The guest is gone: what is looked up from now on is forgotten at once. */
  close(): void {
    this.closed = true;
    for (const { node } of this.byId.values()) this.fs.forget(node);
    this.byId.clear();
    this.byNode.clear();
  }
}

/** A folder that is read: the place where the next entry is, for guests that read on, or begin again. */
export interface OpenDirectory {
  readonly node: HostNode;
  readonly directory: HostDirectory;
  position: number;
  /** The entry at `position`, where it was read already and did not fit. */
  pending?: HostDirectoryEntry | undefined;
  /** Requests on it run one after another. */
  turn: Promise<unknown>;
}

export type Handle = { readonly file: HostFile } | { readonly directory: OpenDirectory };

export class HandleTable {
  private readonly handles = new Map<number, Handle>();
  private nextHandle = 1;
  private closed = false;

  get size(): number {
    return this.handles.size;
  }

  /** Throws ENFILE where a guest has too much open: ask before opening. */
  checkRoom(): void {
    if (this.handles.size >= MAX_HANDLES) throw new FuseError('ENFILE');
  }

  async add(handle: Handle): Promise<number> {
    if (this.closed) {
      await close(handle);
      throw new FuseError('EBADF');
    }
    const fh = this.nextHandle++;
    this.handles.set(fh, handle);
    return fh;
  }

  file(fh: number): HostFile {
    const handle = this.handles.get(fh);
    if (handle === undefined || !('file' in handle)) throw new FuseError('EBADF');
    return handle.file;
  }

  directory(fh: number): OpenDirectory {
    const handle = this.handles.get(fh);
    if (handle === undefined || !('directory' in handle)) throw new FuseError('EBADF');
    return handle.directory;
  }

  /** Takes it out of the table and closes it. An error of closing is nobody's any more. */
  async release(fh: number): Promise<void> {
    const handle = this.handles.get(fh);
    this.handles.delete(fh);
    if (handle !== undefined) await close(handle).catch(() => {});
  }

  /** The guest is gone: what is opened from now on is closed at once. */
  async close(): Promise<void> {
    this.closed = true;
    const all = [...this.handles.values()];
    this.handles.clear();
    await Promise.allSettled(all.map(close));
  }
}

async function close(handle: Handle): Promise<void> {
  if ('file' in handle) return handle.file.close();
  await handle.directory.turn;
  await handle.directory.directory.close();
}
