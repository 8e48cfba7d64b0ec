import { ERRNO, type ErrnoName, KernelError } from './errno.js';

/** What the host's own operating system refuses, in the words of the user who asked for it. */

/** Errors that are no errno of ours: the ones of name look-ups (EAI_*) and of routes. */
const NAMES: Readonly<Record<string, ErrnoName>> = {
  ENOTFOUND: 'EHOSTUNREACH',
  EAI_AGAIN: 'EHOSTUNREACH',
  ENETUNREACH: 'EHOSTUNREACH',
};

const REASONS: Readonly<Record<string, string>> = {
  // Files.
  EACCES: 'no permission',
  EEXIST: 'it is there already',
  EFBIG: 'it may not grow so large (a limit of the file system or of the process)',
  EISDIR: 'it is a folder',
  ELOOP: 'its links lead in a circle',
  EMFILE: 'too many files are open',
  ENAMETOOLONG: 'its name is too long',
  ENODEV: 'it is no regular file',
  ENOENT: 'no such file or folder',
  ENOSPC: 'the disk is full',
  ENOTDIR: 'it, or a part of the path, is no folder',
  EPERM: 'no permission',
  EROFS: 'the file system is read-only',
  // Connections.
  EADDRINUSE: 'somebody listens there',
  EADDRNOTAVAIL: 'it is no address of this machine',
  EAI_AGAIN: 'no name server answers',
  ECONNREFUSED: 'nobody listens there',
  ECONNRESET: 'the peer has cut the connection off',
  EHOSTUNREACH: 'no way leads there',
  ENETUNREACH: 'no way leads there',
  ENOTFOUND: 'there is no such host',
  ETIMEDOUT: 'no answer',
};

/** Our errno for what a call of the system threw; EIO where it is none of ours. */
export function systemErrno({ code = '' }: Error & { readonly code?: string }): ErrnoName {
  return code in ERRNO ? (code as ErrnoName) : (NAMES[code] ?? 'EIO');
}

/** And why, in one line. */
export function systemReason({ code = '', message }: Error & { readonly code?: string }): string {
  return REASONS[code] ?? message;
}

/** As a refusal: `message`, which names the value and what it must be, and the reason behind it. */
export function systemError(syscall: string, message: string, cause: unknown): KernelError {
  const error = cause as Error & { code?: string };
  return new KernelError(systemErrno(error), syscall, `${message}: ${systemReason(error)}`, { cause });
}
