import fs from 'node:fs';
import { promisify } from 'node:util';
import { KernelError, systemError } from '../base/index.js';
import type {
  FileSystemBackend,
  HostAttributes,
  HostChanges,
  HostDirectory,
  HostEntry,
  HostFile,
  HostSpace,
} from '../machine/index.js';
import { FolderDirectory, FolderFile } from './folderfile.js';
import { type FolderNode, NodeFds, toAttributes } from './foldernode.js';

/**
 * A folder of the host, for guests: nothing outside of it can be reached, whatever names, links and renames a guest makes, and whatever is
 * renamed on the host meanwhile.
 *
 * Every step is by one name in a folder that is held open (Linux: /proc/self/fd/N/name, which is openat for programs without it), and no
 * link is followed: a link's target is text for the guest, whose kernel follows it in its own world. Only regular files are opened; device
 * nodes and pipes are neither made nor opened, and set-user-ID bits are never set.
 *
 * Files of the user who runs this are root's in the guest; other owners are shown as they are. What the guest may do is what that user may.
 *
 * Linux only: other hosts have no such names. Use: `await openFolder(path, { readOnly })`, then `new VirtioFs({ tag, fs })`.
 */

const { O_CREAT, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } = fs.constants;
const open = promisify(fs.open);
const fsp = fs.promises;
/** Permissions and the sticky bit: all of a mode that a guest may set. */
const MODE_MASK = 0o1777;

export interface FolderOptions {
  readonly readOnly?: boolean;
}

/** Throws KernelError naming the path: ENOENT, ENOTDIR, EACCES; EOPNOTSUPP where the host is not Linux. May wait. */
export async function openFolder(path: string, { readOnly = false }: FolderOptions = {}): Promise<FileSystemBackend> {
  if (process.platform !== 'linux')
    throw new KernelError('EOPNOTSUPP', 'openFolder', `folder '${path}': folders can be shared on Linux hosts only`);
  try {
    const fd = await open(path, fs.constants.O_DIRECTORY | O_RDONLY);
    return new Folder(new NodeFds(fd), readOnly);
  } catch (error) {
    throw systemError('openFolder', `folder '${path}' must be a folder that can be read`, error);
  }
}

class Folder implements FileSystemBackend {
  readonly root: FolderNode;
  private readonly fds: NodeFds;
  private readonly readOnly: boolean;
  /** Whose files are root's in the guest. */
  private readonly uid = process.getuid!();
  private readonly gid = process.getgid!();

  constructor(fds: NodeFds, readOnly: boolean) {
    this.fds = fds;
    this.root = fds.root;
    this.readOnly = readOnly;
  }

  async lookup(parent: FolderNode, name: Uint8Array): Promise<HostEntry> {
    const { node, stat } = await this.fds.lookup(parent, name);
    return { node, attributes: this.mapOwner(toAttributes(stat)) };
  }

  forget(node: FolderNode): void {
    this.fds.forget(node);
  }

  async attributes(node: FolderNode): Promise<HostAttributes> {
    return this.mapOwner(toAttributes(await this.fds.stat(node)));
  }

  private readonly mapOwner = (attributes: HostAttributes): HostAttributes => {
    const { uid, gid } = attributes;
    return { ...attributes, uid: uid === this.uid ? 0 : uid, gid: gid === this.gid ? 0 : gid };
  };

  async setAttributes(node: FolderNode, changes: HostChanges): Promise<void> {
    this.checkWritable();
    const type = Number((await this.fds.stat(node)).mode) & S_IFMT;
    await this.setOwner(node, changes);
    await this.fds.withFd(node, async (fd) => {
      const path = `/proc/self/fd/${fd}`;
      if (changes.mode !== undefined) {
        if (type === S_IFLNK) throw new KernelError('EOPNOTSUPP', 'chmod', 'a link has no mode of its own');
        await fsp.chmod(path, changes.mode & MODE_MASK);
      }
      if (changes.size !== undefined) {
        if (type !== S_IFREG) throw new KernelError('EINVAL', 'truncate', 'only a regular file has a length');
        await fsp.truncate(path, changes.size);
      }
    });
    if (changes.atime !== undefined || changes.mtime !== undefined) await this.setTimes(node, type, changes);
  }

  /** As its user may: root gives files away, others keep them. */
  private async setOwner(node: FolderNode, changes: HostChanges): Promise<void> {
    if (changes.uid === undefined && changes.gid === undefined) return;
    const now = await this.attributes(node);
    const { uid = now.uid, gid = now.gid } = changes;
    if (uid === now.uid && gid === now.gid) return;
    if (this.uid !== 0) throw new KernelError('EPERM', 'chown', 'only root may give files away');
    await this.fds.withName(node, (path) => fsp.lchown(path, uid, gid));
  }

  /** Seconds with fractions, as Node takes them: right to a microsecond. */
  private async setTimes(node: FolderNode, type: number, { atime, mtime }: HostChanges): Promise<void> {
    const stat = await this.fds.stat(node);
    const value = (wanted: number | 'now' | undefined, old: bigint) =>
      wanted === 'now' ? Date.now() / 1000 : (wanted ?? Number(old) / 1e9);
    const times = [value(atime, stat.atimeNs), value(mtime, stat.mtimeNs)] as const;
    if (type === S_IFLNK) await this.fds.withName(node, (path) => fsp.lutimes(path, ...times));
    else await this.fds.withFd(node, (fd) => fsp.utimes(`/proc/self/fd/${fd}`, ...times));
  }

  readlink(node: FolderNode): Promise<Uint8Array> {
    return this.fds.withName(node, (path) => fsp.readlink(path, 'buffer'));
  }

  async mkdir(parent: FolderNode, name: Uint8Array, mode: number): Promise<void> {
    await this.change(parent, name, (path) => fsp.mkdir(path, mode & MODE_MASK));
  }

  async symlink(parent: FolderNode, name: Uint8Array, target: Uint8Array): Promise<void> {
    await this.change(parent, name, (path) => fsp.symlink(Buffer.from(target), path));
  }

  async link(node: FolderNode, parent: FolderNode, name: Uint8Array): Promise<void> {
    this.checkWritable();
    await this.fds.withName(node, (from) => this.change(parent, name, (path) => fsp.link(from, path)));
  }

  async unlink(parent: FolderNode, name: Uint8Array): Promise<void> {
    await this.change(parent, name, (path) => fsp.unlink(path));
  }

  async rmdir(parent: FolderNode, name: Uint8Array): Promise<void> {
    await this.change(parent, name, (path) => fsp.rmdir(path));
  }

  async rename(from: FolderNode, fromName: Uint8Array, to: FolderNode, toName: Uint8Array): Promise<void> {
    await this.change(from, fromName, (source) => this.change(to, toName, (target) => fsp.rename(source, target)));
    // The node is known by its new name from now on.
    const { node } = await this.fds.lookup(to, toName);
    this.fds.forget(node);
  }

  async open(node: FolderNode, access: number): Promise<HostFile> {
    if (access !== O_RDONLY) this.checkWritable();
    const type = Number((await this.fds.stat(node)).mode) & S_IFMT;
    if (type === S_IFDIR) throw new KernelError('EISDIR', 'open', 'a folder is not opened as a file');
    if (type !== S_IFREG) throw new KernelError('EPERM', 'open', 'only regular files are opened');
    const fd = await this.fds.withFd(node, (path) => open(`/proc/self/fd/${path}`, access | O_NOCTTY));
    return new FolderFile(fd, this.mapOwner);
  }

  /** O_NONBLOCK: what stands there already may be a pipe, which nobody waits for. */
  async create(
    parent: FolderNode,
    name: Uint8Array,
    access: number,
    mode: number,
    exclusive: boolean,
  ): Promise<HostFile> {
    const flags = access | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | (exclusive ? O_EXCL : 0);
    const fd = await this.change(parent, name, (path) => open(path, flags, mode & 0o777));
    if (fs.fstatSync(fd).isFile()) return new FolderFile(fd, this.mapOwner);
    fs.closeSync(fd);
    throw new KernelError('EPERM', 'create', 'only regular files are opened');
  }

  async openDirectory(node: FolderNode): Promise<HostDirectory> {
    return FolderDirectory.open(() => this.fds.withFd(node, (fd) => FolderDirectory.read(`/proc/self/fd/${fd}`)));
  }

  async space(): Promise<HostSpace> {
    const space = await this.fds.withFd(this.root, (fd) => fsp.statfs(`/proc/self/fd/${fd}`, { bigint: true }));
    return { ...space, bsize: Number(space.bsize) };
  }

  private checkWritable(): void {
    if (this.readOnly) throw new KernelError('EROFS', 'share', 'the folder is shared for reading only');
  }

  /** Does what changes the entry `name` of a folder. */
  private change<T>(parent: FolderNode, name: Uint8Array, work: (path: Buffer) => Promise<T>): Promise<T> {
    this.checkWritable();
    return this.fds.withEntry(parent, name, work);
  }

  async close(): Promise<void> {
    this.fds.close();
  }
}
