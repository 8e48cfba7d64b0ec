import fs from 'node:fs';
import { promisify } from 'node:util';
import { KernelError } from '../base/index.js';
import type { HostAttributes, HostNode } from '../machine/index.js';

/**
 * The nodes of a shared folder, and descriptors that name them (O_PATH: they give no access by themselves).
 *
 * A node is reached by its descriptor; at most MAX_FDS are open, and one that was closed is opened again by its name in its parent, and must be
 * the same file then (ESTALE otherwise). Names are single ones and no link is followed, so every step stays in the folder.
 *
 * A race that is none:
 *
 *     guest A                                    guest B, or the host
 *     lookup d          node of d, descriptor
 *                                                mv d e; ln -s / d
 *     open d/x          /proc/self/fd/N/x: still in what was d, wherever its name went
 */

const O_PATH = 0o10000000;
const { O_NOFOLLOW } = fs.constants;
const MAX_FDS = 256;
/** Names that are followed upwards when descriptors are opened again: longer ones are a circle that renames have left. */
const MAX_DEPTH = 1024;
const SLASH = 0x2f;

const open = promisify(fs.open);
const fstat = promisify<number, fs.BigIntOptions, fs.BigIntStats>(fs.fstat);

export class FolderNode implements HostNode {
  readonly dev: bigint;
  readonly ino: bigint;
  /** Where it was seen last. */
  parent: FolderNode | undefined;
  name: Uint8Array;
  nrLookups = 0;
  fd = -1;
  /** Uses under way: the descriptor stays. */
  pins = 0;
  opening: Promise<void> | undefined;

  constructor(stat: fs.BigIntStats, parent: FolderNode | undefined, name: Uint8Array) {
    this.dev = stat.dev;
    this.ino = stat.ino;
    this.parent = parent;
    this.name = name;
  }
}

export class NodeFds {
  readonly root: FolderNode;
  private readonly nodes = new Map<string, FolderNode>();
  /** Nodes with a descriptor; the one used last stands last. */
  private readonly opened = new Set<FolderNode>();
  private closed = false;

  /** `rootFd` is this one's from now on. */
  constructor(rootFd: number) {
    this.root = new FolderNode(fs.fstatSync(rootFd, { bigint: true }), undefined, new Uint8Array(0));
    this.root.fd = rootFd;
    this.nodes.set(keyOf(this.root), this.root);
  }

  get nrOpen(): number {
    return this.opened.size;
  }

  /** Takes a reference. */
  async lookup(parent: FolderNode, name: Uint8Array): Promise<{ node: FolderNode; stat: fs.BigIntStats }> {
    const kept = name.slice();
    const fd = await this.withEntry(parent, kept, (path) => open(path, O_PATH | O_NOFOLLOW));
    const stat = fs.fstatSync(fd, { bigint: true });
    const node = this.nodes.get(keyOf(stat)) ?? this.add(new FolderNode(stat, parent, kept));
    if (node !== this.root) {
      node.parent = parent;
      node.name = kept;
    }
    node.nrLookups++;
    if (node.fd >= 0 || this.closed) fs.closeSync(fd);
    else this.keep(node, fd);
    return { node, stat };
  }

  private add(node: FolderNode): FolderNode {
    this.nodes.set(keyOf(node), node);
    return node;
  }

  forget(node: FolderNode): void {
    if (--node.nrLookups > 0 || node === this.root) return;
    if (this.nodes.get(keyOf(node)) === node) this.nodes.delete(keyOf(node));
    if (node.pins === 0) this.drop(node);
  }

  stat(node: FolderNode): Promise<fs.BigIntStats> {
    return this.withFd(node, (fd) => fstat(fd, { bigint: true }));
  }

  /** Calls `work` with a descriptor of the node, which is open until it is done. */
  async withFd<T>(node: FolderNode, work: (fd: number) => Promise<T>, depth = 0): Promise<T> {
    while (node.fd < 0) {
      node.opening ??= this.reopen(node, depth).finally(() => {
        node.opening = undefined;
      });
      await node.opening;
    }
    if (this.opened.delete(node)) this.opened.add(node);
    node.pins++;
    try {
      return await work(node.fd);
    } finally {
      node.pins--;
      this.trim();
    }
  }

  /** Calls `work` with a path of the entry `name` of a folder: of one step, from a descriptor. */
  withEntry<T>(parent: FolderNode, name: Uint8Array, work: (path: Buffer) => Promise<T>, depth = 0): Promise<T> {
    checkName(name);
    return this.withFd(parent, (fd) => work(Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), name])), depth);
  }

  /** Calls `work` with a path of the node itself, for what has to be done by name; the folder has none. */
  withName<T>(node: FolderNode, work: (path: Buffer) => Promise<T>): Promise<T> {
    if (node.parent === undefined) throw new KernelError('EBUSY', 'share', 'the shared folder itself has no name');
    return this.withEntry(node.parent, node.name, work);
  }

  private async reopen(node: FolderNode, depth: number): Promise<void> {
    const { parent } = node;
    if (parent === undefined || depth > MAX_DEPTH || this.closed) throw stale();
    const fd = await this.withEntry(parent, node.name, (path) => open(path, O_PATH | O_NOFOLLOW), depth + 1);
    const stat = fs.fstatSync(fd, { bigint: true });
    if (stat.ino === node.ino && stat.dev === node.dev && !this.closed) return this.keep(node, fd);
    fs.closeSync(fd);
    throw stale();
  }

  private keep(node: FolderNode, fd: number): void {
    node.fd = fd;
    this.opened.add(node);
    this.trim();
  }

  private trim(): void {
    if (this.closed) this.closeRoot();
    for (const node of this.opened) {
      if (this.opened.size <= MAX_FDS && !this.closed) return;
      if (node.pins === 0) this.drop(node);
    }
  }

  private drop(node: FolderNode): void {
    if (!this.opened.delete(node)) return;
    fs.closeSync(node.fd);
    node.fd = -1;
  }

  /** Uses under way end by themselves. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.trim();
  }

  private closeRoot(): void {
    if (this.root.fd < 0 || this.root.pins > 0) return;
    fs.closeSync(this.root.fd);
    this.root.fd = -1;
  }
}

function keyOf({ dev, ino }: { dev: bigint; ino: bigint }): string {
  return `${dev}:${ino}`;
}

/** The server has looked already; here is where it would matter. */
function checkName(name: Uint8Array): void {
  const dots = name.length <= 2 && name.every((byte) => byte === 0x2e);
  if (dots || name.includes(SLASH) || name.includes(0))
    throw new KernelError('EINVAL', 'share', `'${Buffer.from(name)}' must be one name`);
}

function stale(): KernelError {
  return new KernelError('ESTALE', 'share', 'the file is no longer where it was');
}

export function toAttributes(stat: fs.BigIntStats): HostAttributes {
  const { ino, size, blocks, atimeNs, mtimeNs, ctimeNs } = stat;
  const [mode, nlink, uid, gid, rdev, blksize] = [
    stat.mode,
    stat.nlink,
    stat.uid,
    stat.gid,
    stat.rdev,
    stat.blksize,
  ].map(Number);
  return { ino, size, blocks, atimeNs, mtimeNs, ctimeNs, mode, nlink, uid, gid, rdev, blksize };
}
