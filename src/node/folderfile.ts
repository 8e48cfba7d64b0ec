import fs from 'node:fs';
import { promisify } from 'node:util';
import type { HostAttributes, HostDirectory, HostDirectoryEntry, HostFile } from '../machine/index.js';
import { toAttributes } from './foldernode.js';

/** Open files and folders of a shared folder. */

const read = promisify(fs.read);
const write = promisify(fs.write);
const ftruncate = promisify(fs.ftruncate);
const fsync = promisify(fs.fsync);
const fdatasync = promisify(fs.fdatasync);
const close = promisify(fs.close);

export class FolderFile implements HostFile {
  private readonly fd: number;
  private readonly map: (attributes: HostAttributes) => HostAttributes;

  constructor(fd: number, map: (attributes: HostAttributes) => HostAttributes) {
    this.fd = fd;
    this.map = map;
  }

  attributes(): HostAttributes {
    return this.map(toAttributes(fs.fstatSync(this.fd, { bigint: true })));
  }

  async read(dst: Uint8Array, offset: number): Promise<number> {
    for (let done = 0; ; ) {
      if (done === dst.length) return done;
      const { bytesRead } = await read(this.fd, dst, done, dst.length - done, offset + done);
      if (bytesRead === 0) return done;
      done += bytesRead;
    }
  }

  async write(src: Uint8Array, offset: number): Promise<number> {
    const { bytesWritten } = await write(this.fd, src, 0, src.length, offset);
    return bytesWritten;
  }

  truncate(size: number): Promise<void> {
    return ftruncate(this.fd, size);
  }

  sync(dataOnly: boolean): Promise<void> {
    return dataOnly ? fdatasync(this.fd) : fsync(this.fd);
  }

  close(): Promise<void> {
    return close(this.fd);
  }
}

/** linux/fs.h: DT_REG and its like. */
const DT_FIFO = 1;
const DT_CHR = 2;
const DT_DIR = 4;
const DT_BLK = 6;
const DT_REG = 8;
const DT_LNK = 10;
const DT_SOCK = 12;

/** The names of a folder, read piece by piece however many there are. */
export class FolderDirectory implements HostDirectory {
  private readonly reopen: () => Promise<fs.Dir>;
  private dir: fs.Dir;

  private constructor(reopen: () => Promise<fs.Dir>, dir: fs.Dir) {
    this.reopen = reopen;
    this.dir = dir;
  }

  static async open(reopen: () => Promise<fs.Dir>): Promise<FolderDirectory> {
    return new FolderDirectory(reopen, await reopen());
  }

  /** Names as bytes; Node's types know only strings there. */
  static read(path: string): Promise<fs.Dir> {
    return fs.promises.opendir(path, { encoding: 'buffer' as BufferEncoding, bufferSize: 64 });
  }

  async next(): Promise<HostDirectoryEntry | undefined> {
    const entry = await this.dir.read();
    return entry === null ? undefined : { name: entry.name as unknown as Uint8Array, type: typeOf(entry) };
  }

  async rewind(): Promise<void> {
    const dir = await this.reopen();
    await this.dir.close();
    this.dir = dir;
  }

  close(): Promise<void> {
    return this.dir.close();
  }
}

function typeOf(entry: fs.Dirent): number {
  if (entry.isFile()) return DT_REG;
  if (entry.isDirectory()) return DT_DIR;
  if (entry.isSymbolicLink()) return DT_LNK;
  if (entry.isFIFO()) return DT_FIFO;
  if (entry.isSocket()) return DT_SOCK;
  if (entry.isCharacterDevice()) return DT_CHR;
  return entry.isBlockDevice() ? DT_BLK : 0;
}
