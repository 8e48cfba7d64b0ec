import fs from 'node:fs';
import { resolve } from 'node:path';
import { KernelError, systemError } from '../base/index.js';

/** Files named on the command line: a refusal names the file and what it must be. */

/** The file's bytes, for `releaseInput` when they are used. Throws KernelError naming it: ENOENT, EISDIR, ENODEV (a device: it may have no end), EACCES, or EIO. */
export function readInput(what: string, path: string): Uint8Array {
  const right = `${what} '${path}' must be a file that can be read`;
  try {
    const stat = fs.statSync(path);
    if (stat.isFile()) return readResizable(path);
    if (!stat.isCharacterDevice() && !stat.isBlockDevice()) return fs.readFileSync(path);
  } catch (error) {
    throw systemError('open', right, error);
  }
  throw new KernelError('ENODEV', 'open', `${right}: it is a device`);
}

function readResizable(path: string): Uint8Array {
  const fd = fs.openSync(path, 'r');
  try {
    const { size } = fs.fstatSync(fd);
    const bytes = new Uint8Array(new ArrayBuffer(size, { maxByteLength: size }));
    let at = 0;
    for (let got = -1; got !== 0 && at < size; at += got) got = fs.readSync(fd, bytes, at, size - at, null);
    return bytes.subarray(0, at);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Gives the memory of a file's bytes back, now.
 * WHY: the collector has no reason to run while guests do, and a kernel of 30 MB stayed in memory to the end.
 */
export function releaseInput(bytes: Uint8Array): void {
  if (bytes.buffer instanceof ArrayBuffer && bytes.buffer.resizable) bytes.buffer.resize(0);
}

/**
 * A file that will be written at the end of the run. It is opened at the beginning, so that what cannot be written is
 * refused before anything runs; its old contents stay until `write`.
 */
export class OutputFile {
  private readonly what: string;
  private readonly path: string;
  private readonly fd: number;
  private readonly created: boolean;

  /** Throws KernelError naming the path: ENOENT, EISDIR, EACCES, EROFS, ENOSPC, or EIO. */
  constructor(what: string, path: string) {
    this.what = what;
    this.path = path;
    this.created = !fs.existsSync(path);
    this.fd = this.attempt(() => fs.openSync(path, 'a'));
  }

  write(text: string): void {
    this.attempt(() => {
      if (fs.fstatSync(this.fd).isFile()) fs.ftruncateSync(this.fd, 0);
      fs.writeFileSync(this.fd, text);
      fs.closeSync(this.fd);
    });
  }

  /** The run was refused: a file that was made for it goes. */
  discard(): void {
    fs.closeSync(this.fd);
    if (this.created) fs.rmSync(this.path, { force: true });
  }

  private attempt<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw systemError('open', `${this.what} '${this.path}' must be a file that can be written`, error);
    }
  }
}

/** Refuses one file under two options: what is written to it would destroy the other. */
export function refuseSameFile(files: Record<string, string | undefined>): void {
  const seen = new Map<string, string>();
  for (const [option, path] of Object.entries(files)) {
    if (path === undefined) continue;
    const identity = identityOf(path);
    const other = seen.get(identity);
    if (other !== undefined) throw new KernelError('EINVAL', 'open', `${other} and ${option} name one file '${path}'`);
    seen.set(identity, option);
  }
}

/** The same for one file under two names, by links of either kind. What cannot be reached is refused by whoever opens it. */
function identityOf(path: string): string {
  try {
    const stat = fs.statSync(path);
    if (stat.isFile()) return `${stat.dev}:${stat.ino}`;
  } catch {}
  return resolve(path);
}
