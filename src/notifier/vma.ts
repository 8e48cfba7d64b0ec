import { KernelError } from '../base/index.js';
import { MMU_NOTIFY_CLEAR, MMU_NOTIFY_UNMAP, type Mm, type MmuNotifyEvent, PAGE_SIZE, type Vma } from '../mm/index.js';
import { Registration } from './registration.js';

/**
 * What the proposal has host code call by VMA. mm does all of it by itself whenever a pte or a VMA changes; these are for
 * host code that takes pages away by means of its own, for teaching, and for tests. To say more than needed is always legal (N11).
 */

/** The registrations that cover some of `vma`, in the order of their addresses. */
function registrationsOf(vma: Vma): Registration[] {
  const found: Registration[] = [];
  for (const { ops, registered, pieces } of vma.mm.notifiers.all()) {
    const covers = pieces.some(({ start, end }) => start < vma.end && end > vma.start);
    if (registered && ops instanceof Registration && covers) found.push(ops);
  }
  return found;
}

/**
 * A VMA was made. There is no list in it to set up, since subscriptions belong to the mm: a new VMA has none, a piece of a
 * split one has those of the whole, without a call. Returns how many cover it.
 */
export function vmaInitPteNotifiers(vma: Vma): number {
  return registrationsOf(vma).length;
}

/**
 * The bracket for one page of `vma`, by hand: every notifier on it gets `clear` if the page is present, `change` runs where the pte may be
 * changed, and until it returns no external fault can install the address. `change` must not wait. Throws KernelError EFAULT for an address
 * outside the VMA, EBUSY inside a bracket or callback.
 */
export function pteNotifierCall(vma: Vma, op: 'clear', address: number, change: () => void = () => {}): void {
  if (op !== 'clear') throw new KernelError('EINVAL', 'pteNotifierCall', `op ${String(op)} must be 'clear'`);
  if (!(address >= vma.start && address < vma.end)) {
    const where = `[0x${vma.start.toString(16)}, 0x${vma.end.toString(16)})`;
    throw new KernelError('EFAULT', 'pteNotifierCall', `address 0x${address.toString(16)} must lie in ${where}`);
  }
  const vpn = Math.floor(address / PAGE_SIZE);
  bracket('pteNotifierCall', vma.mm, MMU_NOTIFY_CLEAR, vpn, vpn + 1, change);
}

/**
 * `vma` goes away for its notifiers: each is told `clear` for what is present, and those of whose area nothing else is mapped are told
 * `close` and are registered no more (`release` is not called). The mapping itself stays. Throws KernelError EBUSY inside a bracket or callback.
 */
export function vmaClosePteNotifiers(vma: Vma): void {
  const closing = registrationsOf(vma).filter((r) => isLastPiece(r, vma));
  bracket('vmaClosePteNotifiers', vma.mm, MMU_NOTIFY_UNMAP, vma.startVpn, vma.endVpn, () => {
    for (const r of closing) vma.mm.notifiers.guard(r.sub!, 'areaClosed', () => r.areaClosed());
  });
  for (const r of closing) r.unregisterClosed();
}

/** The same under the name that the proposal's source file gives it. */
export const vmaDestroyPteNotifiers = vmaClosePteNotifiers;

/** Whether nothing of the area is mapped outside `vma`. */
function isLastPiece(registration: Registration, vma: Vma): boolean {
  const { vmas } = vma.mm;
  return registration.sub!.pieces.every(({ start, end }) => {
    const mapped = (from: number, to: number) => from < to && vmas.intersects(from, to);
    const [first, last] = [start / PAGE_SIZE, end / PAGE_SIZE];
    return !mapped(first, Math.min(vma.startVpn, last)) && !mapped(Math.max(vma.endVpn, first), last);
  });
}

function bracket(
  syscall: string,
  mm: Mm,
  event: MmuNotifyEvent,
  startVpn: number,
  endVpn: number,
  change: () => void,
): void {
  if (mm.notifiers.inBracket) throw new KernelError('EBUSY', syscall, 'must not be called while a bracket is open');
  mm.mmapLock.lock(event === MMU_NOTIFY_UNMAP ? 'write' : 'read');
  try {
    mm.range.reset(event, true);
    mm.range.add(startVpn, endVpn);
    mm.notifiers.invalidateRangeStart(mm.range.seal());
    try {
      change();
    } finally {
      mm.notifiers.invalidateRangeEnd(mm.range);
    }
  } finally {
    mm.mmapLock.unlock();
  }
}
