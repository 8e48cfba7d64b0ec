/**
 * What a shared folder needs of its host: a file system that is reached by nodes and single names, never by paths, so that there is
 * no path for a guest to climb out by. Injected; `unpin/node` has one for Linux hosts, and tests may have their own.
 *
 * Names are bytes, as the guest gave them: not empty, without '/' and NUL, and neither '.' nor '..': who calls has looked. Every call may
 * wait, and rejects with an Error whose `errno` is Linux's number (positive, or negative as Node has it).
 */

/** One file, folder or link of the host, for as long as the guest knows it. The backend's own. */
export interface HostNode {
  /** Same node, same number, while anybody holds it. */
  readonly ino: bigint;
}

/** As struct stat has them; times in nanoseconds. */
export interface HostAttributes {
  readonly ino: bigint;
  readonly size: bigint;
  readonly blocks: bigint;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly blksize: number;
}

/** What `setAttributes` changes; seconds, or 'now'. */
export interface HostChanges {
  mode?: number;
  uid?: number;
  gid?: number;
  size?: number;
  atime?: number | 'now';
  mtime?: number | 'now';
}

export interface HostEntry {
  readonly node: HostNode;
  readonly attributes: HostAttributes;
}

export interface HostFile {
  attributes(): HostAttributes;
  /** Bytes read: fewer only at the end of the file. */
  read(dst: Uint8Array, offset: number): Promise<number>;
  write(src: Uint8Array, offset: number): Promise<number>;
  truncate(size: number): Promise<void>;
  sync(dataOnly: boolean): Promise<void>;
  close(): Promise<void>;
}

export interface HostDirectoryEntry {
  readonly name: Uint8Array;
  /** DT_REG, DT_DIR, DT_LNK ...; 0 where it is not known. */
  readonly type: number;
}

export interface HostDirectory {
  /** The next one, or undefined at the end. */
  next(): Promise<HostDirectoryEntry | undefined>;
  rewind(): Promise<void>;
  close(): Promise<void>;
}

export interface HostSpace {
  readonly blocks: bigint;
  readonly bfree: bigint;
  readonly bavail: bigint;
  readonly files: bigint;
  readonly ffree: bigint;
  readonly bsize: number;
}

export interface FileSystemBackend {
  readonly root: HostNode;
  /** Takes a reference to the node, which `forget` gives back. */
  lookup(parent: HostNode, name: Uint8Array): Promise<HostEntry>;
  forget(node: HostNode): void;
  attributes(node: HostNode): Promise<HostAttributes>;
  setAttributes(node: HostNode, changes: HostChanges): Promise<void>;
  readlink(node: HostNode): Promise<Uint8Array>;
  mkdir(parent: HostNode, name: Uint8Array, mode: number): Promise<void>;
  symlink(parent: HostNode, name: Uint8Array, target: Uint8Array): Promise<void>;
  link(node: HostNode, parent: HostNode, name: Uint8Array): Promise<void>;
  unlink(parent: HostNode, name: Uint8Array): Promise<void>;
  rmdir(parent: HostNode, name: Uint8Array): Promise<void>;
  rename(from: HostNode, fromName: Uint8Array, to: HostNode, toName: Uint8Array): Promise<void>;
  /** A regular file alone; `access` is O_RDONLY, O_WRONLY or O_RDWR. */
  open(node: HostNode, access: number): Promise<HostFile>;
  /** Makes a regular file, and opens it; with `exclusive` it must be new. */
  create(parent: HostNode, name: Uint8Array, access: number, mode: number, exclusive: boolean): Promise<HostFile>;
  openDirectory(node: HostNode): Promise<HostDirectory>;
  space(): Promise<HostSpace>;
  /** Closes what is still open. */
  close(): Promise<void>;
}
