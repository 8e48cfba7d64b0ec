import { readFileSync, writeFileSync } from 'node:fs';
import { KernelError } from '../base/index.js';

/** Files named on the command line: a refusal names the file and what it must be. */

/** The file's bytes, or KernelError ENOENT, EACCES or EIO naming it. */
export function readInput(what: string, path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fileError('open', `${what} '${path}' must be a readable file`, error);
  }
}

export function writeOutput(what: string, path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw fileError('open', `${what} '${path}' must be a writable file`, error);
  }
}

function fileError(syscall: string, message: string, cause: unknown): KernelError {
  const code = (cause as NodeJS.ErrnoException).code;
  const known = code === 'ENOENT' || code === 'EACCES' || code === 'ENOSPC' ? code : 'EIO';
  return new KernelError(known, syscall, message, { cause });
}
