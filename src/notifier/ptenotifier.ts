import { KernelError } from '../base/index.js';
import type { Mm, MmapLockMode, Vma } from '../mm/index.js';
import type { Registration } from './registration.js';

/**
 * The driver's side of the proposal's face: what it is told, and how its fault path asks whether what it looked up still holds.
 * Registering is in register.ts, what host code calls by VMA in vma.ts.
 *
 * Use: `pn = new PteNotifier(ops)`, `pteNotifierRegister(pn, vma)`, then for each external fault
 *
 *   for (;;) {
 *     const seq = pteNotifierReadBegin(pn);            // before the look-up
 *     const pfn = mm.tryGetPage(address, flags);       // < 0: faultIn, or give up
 *     (the driver's lock, if it has threads)
 *     const stale = pteNotifierReadRetry(pn, seq, address);
 *     if (!stale) (install the entry)
 *     (unlock)
 *     mm.putPage(pfn);
 *     if (!stale) break;
 *   }
 *
 *   mm thread                                 external fault
 *                                             seq = readBegin
 *                                             tryGetPage: the old page
 *   bracket opens
 *   clear(pn, vma, address): nothing to drop
 *                                             readRetry: true (a bracket covers the address) -> looks again
 *   pte cleared
 *   bracket ends, seq moves, page freed       readRetry: true (seq moved) -> looks again
 *
 * Required outcome: the old page is never installed (N3, N8). Proved by `S2 N3: an external fault inside the bracket` of
 * test/notifier/readretry.test.ts.
 */

/**
 * All run on the mm thread and must be done when they return; none may wait, call into the mm, or allocate what reclaims (N13). Whatever they
 * return is ignored, except a promise: that, an exception, and an overrun of the host's `notifierBudgetMs` poison the registration (N19).
 */
export interface PteNotifierOps {
  /**
   * The pte of `address` (bytes, page-aligned) goes or loses rights: drop the external entry, and flush it, before returning. Called once
   * for each present pte, at the start of the bracket: the page is still mapped and referenced, its contents may be read. mmapLock is held,
   * except in reclaim. `vma` is the VMA that holds the address now: a piece, where the registered one was split since.
   */
  clear(pn: PteNotifier, vma: Vma, address: number): void;
  /**
   * Nothing of the registered area is mapped any more; called once, after the clears and before anything is freed. The registration is
   * gone when the operation that unmapped it returns. `vma` is the last piece, already out of the mm. mmapLock is held for write.
   */
  close?(pn: PteNotifier, vma: Vma): void;
  /**
   * Before mmapLock is taken, in the order of (mm id, registration id). Reclaim does not take mmapLock: this protects nothing against it.
   * A lock that is taken here and given back in `unlock` may be held over a bracket (it is exempt from N7).
   */
  lock?(pn: PteNotifier, mode: MmapLockMode): void;
  /** After mmapLock was given back, in the reverse order. */
  unlock?(pn: PteNotifier, mode: MmapLockMode): void;
  /** The last callback, once: the mm goes away (after `close`, before its frames can be another's), or the registration is ended. */
  release?(pn: PteNotifier): void;
  /**
   * Not the proposal's, and for debug builds alone (HostOptions.debug): how many entries it has for the bytes [start, end) of the mm, with `writable`
   * those that may write. Asked after the clears of a bracket, which must have left none; where only rights go, no writable one.
   */
  mappings?(pn: PteNotifier, start: number, end: number, writable: boolean): number;
}

export interface PteNotifierOptions {
  /** Told, soon after, that a callback broke its contract: none is called any more, and what may still be mapped stays pinned. */
  onPoisoned?: (pn: PteNotifier, reason: string) => void;
}

/** A driver's interest in one VMA (the proposal's struct pte_notifier, one list link: in one registration at a time). */
export class PteNotifier {
  readonly ops: PteNotifierOps;
  readonly onPoisoned: PteNotifierOptions['onPoisoned'];
  /** The registration, while there is one; register.ts sets it. */
  registration: Registration | undefined;

  constructor(ops: PteNotifierOps, options: PteNotifierOptions = {}) {
    this.ops = ops;
    this.onPoisoned = options.onPoisoned;
  }

  /** From `pteNotifierRegister` until `pteNotifierUnregister` or the end of the operation that unmapped the last of the area. */
  get registered(): boolean {
    return this.registration?.sub?.registered ?? false;
  }

  /** Why it is not called any more; `undefined` while its contract holds. */
  get poisoned(): string | undefined {
    return this.registration?.sub?.poisoned;
  }

  get mm(): Mm | undefined {
    return this.registration?.mm;
  }

  /** First byte of the area, as it was registered. */
  get start(): number | undefined {
    return this.registration?.start;
  }

  /** Byte after the last. */
  get end(): number | undefined {
    return this.registration?.end;
  }
}

/**
 * Before an external fault looks an address up: returns the sequence number for `pteNotifierReadRetry`. Throws KernelError EINVAL when
 * `pn` is not registered, EIO when it is poisoned: it must install nothing any more.
 */
export function pteNotifierReadBegin(pn: PteNotifier): number {
  const { registration } = pn;
  if (registration === undefined || !registration.live) refuse(pn);
  return registration.readBegin();
}

/**
 * Whether what was looked up since `pteNotifierReadBegin` returned `seq` may not be installed, because its pte changes or changed. Under the
 * driver's own lock, if it has one, up to the installation. Without `address` a bracket anywhere in the area counts.
 */
export function pteNotifierReadRetry(pn: PteNotifier, seq: number, address?: number): boolean {
  const { registration } = pn;
  return registration === undefined || !registration.live || registration.readRetry(seq, address);
}

function refuse(pn: PteNotifier): never {
  const why = pn.poisoned;
  if (why !== undefined)
    throw new KernelError('EIO', 'pteNotifierReadBegin', `the notifier is poisoned and may map nothing: ${why}`);
  throw new KernelError('EINVAL', 'pteNotifierReadBegin', 'the notifier must be registered on a VMA');
}
