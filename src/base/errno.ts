/**
 * Refusals. A call that is refused throws a `KernelError` with Linux's errno; its message names the value that
 * was wrong and what it must be. Outcomes expected on hot paths are small integers instead, never exceptions.
 */

/** Linux errno numbers (asm-generic/errno-base.h, errno.h). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  EPROTO: 71,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  ESTALE: 116,
  EDQUOT: 122,
  EHWPOISON: 133,
} as const;

export type ErrnoName = keyof typeof ERRNO;

export class KernelError extends Error {
  readonly code: ErrnoName;
  readonly errno: number;
  readonly syscall: string;

  /** @param message names the value and what it must be; `code` and `syscall` are prefixed to it. */
  constructor(code: ErrnoName, syscall: string, message: string, options?: ErrorOptions) {
    super(`${code}: ${syscall}: ${message}`, options);
    this.name = 'KernelError';
    this.code = code;
    this.errno = ERRNO[code];
    this.syscall = syscall;
  }
}
