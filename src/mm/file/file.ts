import { KernelError } from '../../base/index.js';
import type { Host } from '../host.js';
import { type AddressSpace, MAX_FILE_BYTES } from './addressspace.js';
import type { BackingStore } from './backingstore.js';
import { readFile, writeFile } from './filerw.js';
import { FileRa } from './readahead.js';
import { callStore, errnoName } from './storeio.js';
import { punchHole, truncateFile } from './truncate.js';
import { XA_MAX_INDEX } from './xarray.js';

/**
 * An open file (Linux: struct file): one opener's view of a store. Its contents go through the page cache, so that what is written by call, through
 * a mapping, or by another opener is seen by all at once.
 *
 * A write is in memory when `write` resolves; `fsync` resolves when all that was written before is in the store. Write-back goes on by itself. If it
 * fails, the data stays in memory, and the next `fsync` of each opener rejects once and tries again. `close` reports nothing.
 *
 * Use: `host.openFile(store, { mode: 'rw' })`, then `read`, `write`, `mm.mmap(..., file, offset)`; `close`. A mapping keeps the file open.
 */
export type FileMode = 'r' | 'w' | 'rw';

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;

export const POSIX_FADV_NORMAL = 0;
export const POSIX_FADV_RANDOM = 1;
export const POSIX_FADV_SEQUENTIAL = 2;
export const POSIX_FADV_WILLNEED = 3;
export const POSIX_FADV_DONTNEED = 4;

export class File {
  readonly host: Host;
  readonly mapping: AddressSpace;
  readonly mode: FileMode;
  readonly ra = new FileRa();
  closed = false;
  /** One for the opener, one for each VMA. */
  private nrRefs = 1;
  /** Errors up to here were reported to this opener. */
  private wbErr: number;

  /** See `host.openFile`. */
  constructor(host: Host, mapping: AddressSpace, mode: FileMode) {
    this.host = host;
    this.mapping = mapping;
    this.mode = mode;
    this.wbErr = mapping.wbErr.sample();
    mapping.nrFiles++;
  }

  get name(): string {
    return this.mapping.name;
  }

  get sizeBytes(): number {
    return this.mapping.sizeBytes;
  }

  get readable(): boolean {
    return this.mode !== 'w';
  }

  get writable(): boolean {
    return this.mode !== 'r';
  }

  /**
   * Fills `dst` from byte `position` on, as far as the file goes; resolves to the bytes read (Linux: pread). Rejects with KernelError EBADF, EINVAL,
   * EIO (or what the store said), EHWPOISON, ENOMEM, unless some bytes were read.
   */
  async read(dst: Uint8Array, position: number): Promise<number> {
    this.check('read', this.readable, 'for reading');
    checkPosition('read', position);
    return readFile(this, dst, position);
  }

  /**
   * Writes `src` from byte `position` on; the file grows as needed, and reads as zeros where nothing was written. Resolves to the bytes written (Linux:
   * pwrite). Rejects as `read` does, and with EFBIG.
   */
  async write(src: Uint8Array, position: number): Promise<number> {
    this.check('write', this.writable, 'for writing');
    checkPosition('write', position);
    return this.mapping.inodeLock.run(() => writeFile(this, src, position));
  }

  /**
   * Sets the length (Linux: ftruncate). Rejects with KernelError EBADF, EINVAL (not open for writing), EFBIG, and what the store said: then the file has
   * its new length here, and the store will be asked again before anything is written to it.
   */
  async truncate(sizeBytes: number): Promise<void> {
    this.check('ftruncate', true, '');
    if (!this.writable) throw new KernelError('EINVAL', 'ftruncate', `${this.name} must be open for writing`);
    checkPosition('ftruncate', sizeBytes);
    if (sizeBytes > MAX_FILE_BYTES) throw tooLarge('ftruncate', sizeBytes);
    await this.mapping.inodeLock.run(() => truncateFile(this.host, this.mapping, sizeBytes));
  }

  /**
   * `mode`: 0 makes the file at least `offset + lenBytes` long, KEEP_SIZE does nothing, PUNCH_HOLE | KEEP_SIZE makes the range zeros (Linux:
   * fallocate). Rejects with KernelError EBADF, EINVAL, EFBIG, EOPNOTSUPP, and what the store said: then what is in the range is unknown.
   */
  async fallocate(mode: number, offset: number, lenBytes: number): Promise<void> {
    this.checkFallocate(mode, offset, lenBytes);
    const { host, mapping } = this;
    const end = offset + lenBytes;
    await mapping.inodeLock.run(async () => {
      if (mode === (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) await punchHole(host, mapping, offset, end);
      else if (mode === 0 && end > mapping.sizeBytes) await truncateFile(host, mapping, end);
    });
  }

  private checkFallocate(mode: number, offset: number, lenBytes: number): void {
    this.check('fallocate', true, '');
    if (!(Number.isSafeInteger(offset) && Number.isSafeInteger(lenBytes) && offset >= 0 && lenBytes > 0))
      throw new KernelError('EINVAL', 'fallocate', `offset ${offset} must be from 0 up, length ${lenBytes} from 1 up`);
    const punch = mode === (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    const { store } = this.mapping;
    if (!punch && mode !== 0 && mode !== FALLOC_FL_KEEP_SIZE)
      throw new KernelError('EOPNOTSUPP', 'fallocate', `mode ${mode} must be 0, KEEP_SIZE, or PUNCH_HOLE | KEEP_SIZE`);
    if (punch && store !== undefined && store.punchHole === undefined)
      throw new KernelError('EOPNOTSUPP', 'fallocate', `store ${this.name} cannot punch holes`);
    this.check('fallocate', this.writable, 'for writing');
    if (offset + lenBytes > MAX_FILE_BYTES) throw tooLarge('fallocate', offset + lenBytes);
  }

  /**
   * Resolves when all that was written before is in the store. Rejects with KernelError when a write was lost since this opener was told last: EIO,
   * ENOSPC, or what the store said. The data is still in memory; another fsync tries again.
   */
  async fsync(): Promise<void> {
    await this.fsyncRange('fsync', 0, XA_MAX_INDEX);
  }

  /** As `fsync`: there is nothing but data and length. */
  async fdatasync(): Promise<void> {
    await this.fsyncRange('fdatasync', 0, XA_MAX_INDEX);
  }

  /** As `fsync`, for pages [start, end); for msync, which may come when the opener has closed. */
  async fsyncRange(syscall: string, start: number, end: number): Promise<void> {
    if (this.nrRefs === 0) throw this.badFile(syscall, 'open');
    const { store } = this.mapping;
    if (store === undefined) return;
    await this.host.pageCache.writeback.syncRange(this.mapping, start, end).catch((error) => this.failed(error));
    if (store.sync !== undefined)
      await callStore(store, syscall, () => store.sync!()).catch((error) => this.failed(error));
    this.reportLost(syscall);
  }

  /** Everybody who has the file open will be told. */
  private failed(error: KernelError): void {
    this.mapping.wbErr.set(error.errno);
  }

  private reportLost(syscall: string): void {
    const { wbErr } = this.mapping;
    const errno = wbErr.check(this.wbErr);
    this.wbErr = wbErr.advance(this.wbErr);
    if (errno !== 0)
      throw new KernelError(errnoName(errno), syscall, `a write to ${this.name} was lost; it is kept in memory`);
  }

  /** How the file will be used (Linux: posix_fadvise). Throws KernelError EBADF, EINVAL. */
  fadvise(advice: number, offset = 0, lenBytes = 0): void {
    this.check('fadvise', true, '');
    const { ra } = this;
    if (advice === POSIX_FADV_NORMAL) [ra.random, ra.raPages] = [false, FileRa.DEFAULT_PAGES];
    else if (advice === POSIX_FADV_RANDOM) ra.random = true;
    else if (advice === POSIX_FADV_SEQUENTIAL) [ra.random, ra.raPages] = [false, 2 * FileRa.DEFAULT_PAGES];
    else if (advice === POSIX_FADV_WILLNEED) this.host.pageCache.willneed(this.mapping, offset, lenBytes);
    else if (advice === POSIX_FADV_DONTNEED) this.host.pageCache.dontneed(this.mapping, offset, lenBytes);
    else throw new KernelError('EINVAL', 'fadvise', `advice ${advice} must be from 0 to 4`);
  }

  /** The opener is done. What is dirty will be written some time, and nothing is reported. Throws KernelError EBADF. */
  close(): void {
    this.check('close', true, '');
    this.closed = true;
    this.put();
  }

  /** A VMA maps it. */
  get(): this {
    this.nrRefs++;
    return this;
  }

  put(): void {
    if (--this.nrRefs === 0) this.host.pageCache.closeFile(this.mapping);
  }

  private check(syscall: string, allowed: boolean, how: string): void {
    if (this.closed) throw this.badFile(syscall, 'open');
    if (!allowed) throw this.badFile(syscall, `open ${how}`);
  }

  private badFile(syscall: string, must: string): KernelError {
    return new KernelError('EBADF', syscall, `${this.name} must be ${must}`);
  }
}

/** Opens the store; see `Host.openFile`. */
export function openFile(host: Host, store: BackingStore, mode: FileMode): File {
  if (mode !== 'r' && mode !== 'w' && mode !== 'rw')
    throw new KernelError('EINVAL', 'openFile', `mode ${String(mode)} must be 'r', 'w' or 'rw'`);
  if (mode !== 'r' && store.readOnly === true)
    throw new KernelError('EROFS', 'openFile', `store ${store.name} is read-only: mode must be 'r'`);
  return new File(host, host.pageCache.spaceOf(store), mode);
}

/** See `Host.memfdCreate`. */
export function createShmemFile(host: Host, name: string, sizeBytes: number): File {
  checkPosition('memfdCreate', sizeBytes);
  if (sizeBytes > MAX_FILE_BYTES) throw tooLarge('memfdCreate', sizeBytes);
  return new File(host, host.pageCache.createShmem(name, sizeBytes), 'rw');
}

function checkPosition(syscall: string, position: number): void {
  if (Number.isSafeInteger(position) && position >= 0) return;
  throw new KernelError('EINVAL', syscall, `position ${position} must be an integer from 0 up`);
}

function tooLarge(syscall: string, sizeBytes: number): KernelError {
  return new KernelError('EFBIG', syscall, `a file has at most ${MAX_FILE_BYTES} bytes, not ${sizeBytes}`);
}
