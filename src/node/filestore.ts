import fs from 'node:fs';
import { KernelError, systemError } from '../base/index.js';
import { type BackingStore, PAGE_SIZE } from '../mm/index.js';
import { type FileLock, type LockOutcome, tryLock } from './filelock.js';
import { Limiter } from './limiter.js';
import { after } from './views.js';

/**
 * A file of the host's file system as a backing store: `mm.mmap` and `host.openFile` over a real file. Neighbouring pages move in one readv or writev
 * of the frames themselves, no copy in between. Short transfers are continued; a file that ends early, because somebody cut it, is an error.
 *
 * Node cannot punch holes: zeros are written instead, which takes space. What another process writes to the file is seen as long as the page is not
 * cached.
 *
 * Use: `const store = await openFileStore(path, 'r+')`, `host.openFile(store)`, `host.closeStore(store)` or `host.stop()` closes it.
 */

/** Transfers under way at once: Node's thread pool has 4 threads; some more keep it busy. */
const MAX_TRANSFERS = 8;
/** Zeros are written in pieces of this. */
const ZEROS = new Uint8Array(64 * PAGE_SIZE);

export class FileStore implements BackingStore {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  private readonly path: string;
  private readonly fd: number;
  private readonly limiter = new Limiter(MAX_TRANSFERS);
  private closed = false;

  /** See `openFileStore`. */
  constructor(path: string, fd: number, sizeBytes: number, readOnly: boolean) {
    this.name = `file ${path}`;
    this.path = path;
    this.fd = fd;
    this.sizeBytes = sizeBytes;
    this.readOnly = readOnly;
  }

  read(offset: number, frames: readonly Uint8Array[]): Promise<number> {
    return this.limiter.run(() => this.move('read', frames, offset));
  }

  write(offset: number, frames: readonly Uint8Array[]): Promise<number> {
    return this.limiter.run(() => this.move('write', frames, offset));
  }

  private async move(op: 'read' | 'write', frames: readonly Uint8Array[], offset: number): Promise<number> {
    let moved = 0;
    for (let left = [...frames]; left.length > 0; ) {
      const nr = await this.once(op, left, offset + moved);
      if (nr === 0) break;
      moved += nr;
      left = after(left, nr);
    }
    return moved;
  }

  private once(op: 'read' | 'write', views: Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (error: NodeJS.ErrnoException | null, moved: number) => {
        if (error !== null) reject(storeError(op, this.path, error));
        else resolve(moved);
      };
      if (op === 'read') fs.readv(this.fd, views, position, done);
      else fs.writev(this.fd, views, position, done);
    });
  }

  readSync(offset: number, frames: readonly Uint8Array[]): number {
    return this.moveSync('read', fs.readvSync, frames, offset);
  }

  writeSync(offset: number, frames: readonly Uint8Array[]): number {
    return this.moveSync('write', fs.writevSync, frames, offset);
  }

  private moveSync(
    op: 'read' | 'write',
    transfer: (fd: number, views: Uint8Array[], position: number) => number,
    frames: readonly Uint8Array[],
    offset: number,
  ): number {
    let moved = 0;
    try {
      for (let left = [...frames]; left.length > 0; ) {
        const nr = transfer(this.fd, left, offset + moved);
        if (nr === 0) break;
        moved += nr;
        left = after(left, nr);
      }
    } catch (error) {
      throw storeError(op, this.path, error);
    }
    return moved;
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.call('truncate', (done) => fs.ftruncate(this.fd, sizeBytes, done));
  }

  async punchHole(offset: number, lenBytes: number): Promise<void> {
    for (let at = 0; at < lenBytes; at += ZEROS.length) {
      const zeros = ZEROS.subarray(0, Math.min(ZEROS.length, lenBytes - at));
      if ((await this.write(offset + at, [zeros])) === zeros.length) continue;
      throw new KernelError('EIO', 'fallocate', `file ${this.path}: zeros could not be written at ${offset + at}`);
    }
  }

  async sync(): Promise<void> {
    await this.call('fsync', (done) => fs.fsync(this.fd, done));
  }

  private call(syscall: string, start: (done: (error: NodeJS.ErrnoException | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      start((error) => (error === null ? resolve() : reject(storeError(syscall, this.path, error))));
    });
  }

  /** Takes the file for as long as it is open, if others leave it: with whom they share it, or alone. Blocks for some milliseconds (filelock.ts). */
  tryLock(lock: FileLock): LockOutcome {
    return tryLock(this.fd, lock);
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.limiter.idle();
    fs.closeSync(this.fd);
  }
}

/**
 * Opens a file. `flags` as Node's: 'r' for reading, 'r+' for both, 'w+' makes it or empties it, 'wx+' makes it and fails if it is there. Throws
 * KernelError naming the path: ENOENT, EACCES, EISDIR, EEXIST, EROFS, ENODEV (not a regular file).
 */
export async function openFileStore(path: string, flags: 'r' | 'r+' | 'w+' | 'wx+' = 'r+'): Promise<FileStore> {
  let fd = -1;
  try {
    fd = fs.openSync(path, flags);
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new KernelError('ENODEV', 'open', `${path} must be a regular file`);
    return new FileStore(path, fd, stat.size, flags === 'r');
  } catch (error) {
    if (fd >= 0) fs.closeSync(fd);
    throw storeError('open', path, error);
  }
}

export function storeError(syscall: string, path: string, error: unknown): KernelError {
  if (error instanceof KernelError) return error;
  return systemError(syscall, `file ${path}`, error);
}
