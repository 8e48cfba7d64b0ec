import fs from 'node:fs';
import { KernelError, systemError } from '../base/index.js';
import { PAGE_SIZE, type SwapDevice } from '../mm/index.js';
import { Blocking } from './blocking.js';
import { tryLock } from './filelock.js';
import { Limiter } from './limiter.js';
import { after } from './views.js';

/**
 * A swap device in a file. Consecutive slots move in one readv or writev of the frames themselves, no copy in between; a few
 * transfers are under way at once, or none, where the file is in the page cache and blocking is quicker (blocking.ts). Short transfers are continued; the end of the file where a page should be is an error.
 *
 * Errors are KernelError and name the path. The file is private to its owner (0600), sparse until written, and of no use after the
 * process: `close` removes it if it was created here, and else truncates it to nothing. For signal handlers there is `unlinkSync`.
 * What is in a file already is never overwritten: the path must be free, or an empty file, and no other process may have it (filelock.ts).
 *
 * Use: `await openFileSwap(path, { sizeBytes })`, give it to a Host, `host.stop()` closes it.
 */

/** Transfers under way at once: Node's thread pool has 4 threads; some more keep it busy. */
const MAX_TRANSFERS = 8;
/** Linux: UIO_MAXIOV. */
const MAX_IOV = 1024;

export class FileSwap implements SwapDevice {
  readonly name: string;
  readonly path: string;
  readonly nrSlots: number;
  private readonly fd: number;
  private readonly created: boolean;
  private readonly limiter = new Limiter(MAX_TRANSFERS);
  private readonly blocking = { read: new Blocking(), write: new Blocking() };
  private closed = false;

  /** See `openFileSwap`. */
  constructor(path: string, fd: number, nrSlots: number, created: boolean) {
    this.name = `file ${path}`;
    this.path = path;
    this.fd = fd;
    this.nrSlots = nrSlots;
    this.created = created;
  }

  async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await this.transferAll('read', slots, frames);
  }

  async write(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await this.transferAll('write', slots, frames);
  }

  readSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    for (const [start, end] of runs(slots)) {
      this.moveSync('read', frames.slice(start, end), slots[start]! * PAGE_SIZE);
    }
  }

  writeSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    for (const [start, end] of runs(slots)) {
      this.moveSync('write', frames.slice(start, end), slots[start]! * PAGE_SIZE);
    }
  }

  private async transferAll(
    op: 'read' | 'write',
    slots: readonly number[],
    frames: readonly Uint8Array[],
  ): Promise<void> {
    const transfers = runs(slots).map(([start, end]) =>
      this.transfer(op, frames.slice(start, end), slots[start]! * PAGE_SIZE),
    );
    // All of them end before this does: until then their frames belong to them.
    const results = await Promise.allSettled(transfers);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  private async transfer(op: 'read' | 'write', views: Uint8Array[], position: number): Promise<void> {
    if (this.blocking[op].tried(views.length, () => this.moveSync(op, views, position))) return;
    await this.limiter.run(() => this.move(op, views, position));
  }

  private async move(op: 'read' | 'write', views: Uint8Array[], position: number): Promise<void> {
    for (let left = views; left.length > 0; ) {
      const moved = await this.once(op, left, position);
      this.checkMoved(op, moved, position);
      position += moved;
      left = after(left, moved);
    }
  }

  private moveSync(op: 'read' | 'write', views: Uint8Array[], position: number): void {
    const transfer = op === 'read' ? fs.readvSync : fs.writevSync;
    for (let left = views; left.length > 0; ) {
      let moved = 0;
      try {
        moved = transfer(this.fd, left, position);
      } catch (error) {
        throw systemError(op, `swap file ${this.path}`, error);
      }
      this.checkMoved(op, moved, position);
      position += moved;
      left = after(left, moved);
    }
  }

  private once(op: 'read' | 'write', views: Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (error: NodeJS.ErrnoException | null, moved: number) => {
        if (error !== null) reject(systemError(op, `swap file ${this.path}`, error));
        else resolve(moved);
      };
      if (op === 'read') fs.readv(this.fd, views, position, done);
      else fs.writev(this.fd, views, position, done);
    });
  }

  private checkMoved(op: 'read' | 'write', moved: number, position: number): void {
    if (moved > 0) return;
    const what = op === 'read' ? `the file ends before byte ${position}` : `no byte could be written at ${position}`;
    throw new KernelError('EIO', op, `swap file ${this.path}: ${what}; it was changed while in use`);
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.limiter.idle();
    this.unlinkSync();
    fs.closeSync(this.fd);
  }

  /** Removes the file, or empties it if it was there before. Never throws: it may be gone already. */
  unlinkSync(): void {
    try {
      if (this.created) this.unlinkOwn();
      else fs.ftruncateSync(this.fd, 0);
    } catch {
      // Nothing is left to remove, or nobody may.
    }
  }

  /** The name may have been taken away, and given to another file since. */
  private unlinkOwn(): void {
    const [own, named] = [fs.fstatSync(this.fd), fs.statSync(this.path)];
    if (own.ino === named.ino && own.dev === named.dev) fs.unlinkSync(this.path);
  }
}

/** The runs of consecutive slots, as [first, end) indices. */
function runs(slots: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  let first = 0;
  for (let i = 1; i <= slots.length; i++) {
    if (i < slots.length && slots[i] === slots[i - 1]! + 1 && i - first < MAX_IOV) continue;
    found.push([first, i]);
    first = i;
  }
  return found;
}

export interface FileSwapOptions {
  /** Bytes of the device; whole pages of it are used. */
  readonly sizeBytes: number;
  /** Take the file's name away at once: nothing is left behind however the process ends. */
  readonly unlinked?: boolean;
  /** Past the page cache (O_DIRECT): for a disk of one's own, and for measuring it. EINVAL where the file system has none. */
  readonly direct?: boolean;
}

/**
 * Creates the file, or takes over an empty one. Throws KernelError naming the path: EACCES, EROFS, ENOENT (no such folder),
 * EISDIR, EBUSY (another process has it), EEXIST (a file with something in it), EINVAL (a device, a pipe, or a size below one page), ENOSPC and EFBIG (not even
 * one page can be written).
 */
export async function openFileSwap(path: string, options: FileSwapOptions): Promise<FileSwap> {
  const nrSlots = Math.floor(options.sizeBytes / PAGE_SIZE);
  if (!(nrSlots >= 1 && Number.isSafeInteger(options.sizeBytes))) {
    throw new KernelError(
      'EINVAL',
      'openFileSwap',
      `sizeBytes ${options.sizeBytes} must be an integer of at least ${PAGE_SIZE}`,
    );
  }
  const opened = openNew(path);
  const { created } = opened;
  let { fd } = opened;
  let mine = false;
  try {
    // The path of one that loses its name is nobody else's.
    if (!options.unlinked) takeAlone(path, fd);
    mine = created;
    checkTakeable(path, fd);
    fs.ftruncateSync(fd, nrSlots * PAGE_SIZE);
    // A sparse file is made on a full disk too: what cannot take one page is told now.
    fs.writeSync(fd, new Uint8Array(PAGE_SIZE), 0, PAGE_SIZE, 0);
    if (options.direct) fd = reopenDirect(path, fd);
    if (options.unlinked && created) fs.unlinkSync(path);
  } catch (error) {
    if (mine) fs.rmSync(path, { force: true });
    fs.closeSync(fd);
    throw openError(path, error);
  }
  return new FileSwap(path, fd, nrSlots, created);
}

function openNew(path: string): { fd: number; created: boolean } {
  try {
    return { fd: fs.openSync(path, 'wx+', 0o600), created: true };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw openError(path, error);
  }
  try {
    return { fd: fs.openSync(path, 'r+'), created: false };
  } catch (error) {
    throw openError(path, error);
  }
}

/** WHY by name: the first page was written from memory that is not aligned, as direct I/O wants it; frames are. */
function reopenDirect(path: string, fd: number): number {
  const direct = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_DIRECT);
  fs.closeSync(fd);
  return direct;
}

/**
 * Until the file is as long as it will be, for who finds it not empty leaves it alone.
 *
 *   process A                            process B
 *   makes the file: it is empty
 *                                        finds it empty, takes it
 *   is refused here, leaves it to B      uses it
 */
function takeAlone(path: string, fd: number): void {
  if (tryLock(fd, 'exclusive') !== 'held') return;
  throw new KernelError('EBUSY', 'openFileSwap', `swap file ${path} is in use by another process; it must be another`);
}

function checkTakeable(path: string, fd: number): void {
  const stat = fs.fstatSync(fd);
  if (!stat.isFile()) throw new KernelError('EINVAL', 'openFileSwap', `swap path ${path} must be a regular file`);
  if (stat.size === 0) return;
  throw new KernelError(
    'EEXIST',
    'openFileSwap',
    `swap file ${path} is there already, with ${stat.size} bytes that would be lost; it must be new or empty`,
  );
}

function openError(path: string, error: unknown): KernelError {
  if (error instanceof KernelError) return error;
  return systemError('openFileSwap', `swap file ${path} must be new or empty, and one that can be written`, error);
}
