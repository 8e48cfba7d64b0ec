import { checkFlags, refuse } from '../args.js';
import { PAGE_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import { isDataMapping } from './vmcounters.js';

/**
 * What one mm may have (Linux: setrlimit of RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK). A limit holds for what comes after it was set; what is
 * there already stays.
 */

export const RLIMIT_DATA = 2;
export const RLIMIT_MEMLOCK = 8;
export const RLIMIT_AS = 9;
export type RlimitResource = typeof RLIMIT_DATA | typeof RLIMIT_MEMLOCK | typeof RLIMIT_AS;
/** No limit. */
export const RLIM_INFINITY = Number.POSITIVE_INFINITY;

/** Limits in bytes. */
export class Rlimits {
  /** Of all mappings together. */
  as = RLIM_INFINITY;
  /** Of private writable mappings. */
  data = RLIM_INFINITY;
  /** Of locked mappings; 0: none may be locked (EPERM). */
  memlock = RLIM_INFINITY;

  set(resource: RlimitResource, bytes: number): void {
    checkFlags('setrlimit', 'resource', resource);
    if (!(bytes >= 0)) refuse('EINVAL', 'setrlimit', `limit ${bytes} must be a number of bytes from 0 up`);
    if (resource === RLIMIT_AS) this.as = bytes;
    else if (resource === RLIMIT_DATA) this.data = bytes;
    else if (resource === RLIMIT_MEMLOCK) this.memlock = bytes;
    else refuse('EINVAL', 'setrlimit', `resource ${String(resource)} must be RLIMIT_AS, RLIMIT_DATA or RLIMIT_MEMLOCK`);
  }

  get(resource: RlimitResource): number {
    if (resource === RLIMIT_AS) return this.as;
    if (resource === RLIMIT_DATA) return this.data;
    if (resource === RLIMIT_MEMLOCK) return this.memlock;
    return refuse(
      'EINVAL',
      'getrlimit',
      `resource ${String(resource)} must be RLIMIT_AS, RLIMIT_DATA or RLIMIT_MEMLOCK`,
    );
  }
}

export function limitToPages(bytes: number): number {
  return Math.floor(bytes / PAGE_SIZE);
}

/**
 * Whether `nrPages` more pages of that kind are within RLIMIT_AS and RLIMIT_DATA (Linux: may_expand_vm). What is mapped over counts
 * less: `nrPages` may be negative or 0, which is still too much where the limit is overrun already.
 */
export function mayExpandVm(mm: Mm, prot: number, flags: number, nrPages: number): boolean {
  const { vm, rlimits } = mm;
  if (vm.total + nrPages > limitToPages(rlimits.as)) return false;
  return !isDataMapping(prot, flags) || vm.data + nrPages <= limitToPages(rlimits.data);
}

/** Refuses with ENOMEM, and the numbers, what `mayExpandVm` denies. */
export function checkExpandVm(mm: Mm, syscall: string, prot: number, flags: number, nrPages: number): void {
  if (mayExpandVm(mm, prot, flags, nrPages)) return;
  const kib = (pages: number) => `${pages * 4} KiB`;
  const { vm, rlimits } = mm;
  const over = vm.total + nrPages > limitToPages(rlimits.as);
  const what = over ? `${kib(vm.total)} that are mapped` : `${kib(vm.data)} of private writable memory`;
  const limit = over ? `RLIMIT_AS, ${rlimits.as}` : `RLIMIT_DATA, ${rlimits.data}`;
  refuse('ENOMEM', syscall, `${kib(nrPages)} more beside the ${what}: at most ${limit} bytes for ${mm.name}`);
}
