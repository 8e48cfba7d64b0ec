import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FileStore, storeError } from './filestore.js';

/**
 * A file of holes in the folder for temporary files, that has lost its name: it takes the space of what is written to it, and nothing of it is
 * left however the process ends. Throws KernelError naming the path.
 */
export function openScratchFile(sizeBytes: number): FileStore {
  const path = join(tmpdir(), `unpin-${process.pid}-${randomBytes(4).toString('hex')}.disk`);
  let fd = -1;
  try {
    fd = fs.openSync(path, 'wx+', 0o600);
    fs.unlinkSync(path);
    fs.ftruncateSync(fd, sizeBytes);
    return new FileStore(path, fd, sizeBytes, false);
  } catch (error) {
    if (fd >= 0) fs.closeSync(fd);
    throw storeError('open', path, error);
  }
}
