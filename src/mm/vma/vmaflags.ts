import type { ErrnoName } from '../../base/index.js';
import { hex, refuse } from '../args.js';
import { vpnToVa } from '../layout.js';
import type { Mm } from '../mm.js';
import { remotesVmaChanges } from '../remote/hooks.js';
import { checkMapCount, mergeAround, splitAt } from './mmap.js';
import type { Vma } from './vma.js';

/**
 * A range of pages gets other rights or flags (Linux: the loops of mprotect, mlock, madvise, and vma_modify_flags): VMAs are split at its
 * edges, changed one by one, and merged with neighbours that they came to equal. What lies before the first hole is changed; a hole is an
 * error, and ends it.
 *
 * Use: `changeEach` with a function that looks at each VMA and calls `changeVma` for its part. mmapLock is held for write.
 */

/** Calls `fn` for the part of each VMA inside [startVpn, endVpn). Throws ENOMEM at the first hole. */
export function changeEach(
  mm: Mm,
  syscall: string,
  startVpn: number,
  endVpn: number,
  fn: (vma: Vma, from: number, to: number) => void,
): void {
  for (let next = startVpn; next < endVpn; ) {
    const vma = mm.vmas.find(next);
    if (vma === undefined) refuse('ENOMEM', syscall, `address ${hex(vpnToVa(next))} of ${mm.name} must be mapped`);
    const to = Math.min(vma.endVpn, endVpn);
    fn(vma, next, to);
    next = to;
  }
}

/**
 * Splits [from, to) off `vma` and gives it the rights and flags; `change` then works on its ptes, before it is merged. Throws where
 * there would be too many VMAs.
 */
export function changeVma(
  syscall: string,
  vma: Vma,
  from: number,
  to: number,
  prot: number,
  flags: number,
  change?: (part: Vma) => void,
  code: ErrnoName = 'ENOMEM',
): void {
  const { mm } = vma;
  remotesVmaChanges(vma, from, to, prot, flags);
  checkMapCount(syscall, vma, from, to, code);
  splitAt(mm, from);
  splitAt(mm, to);
  const part = mm.vmas.find(from)!;
  mm.vmas.setFlags(part, prot, flags);
  change?.(part);
  mergeAround(mm, from);
}
