import { CONFIG_PTE_NOTIFIERS } from '../../base/index.js';
import type { Host } from '../host.js';
import type { Mm } from '../mm.js';
import type { Vma } from '../vma/vma.js';

/**
 * What mm calls of the threads that map pages by themselves. An mm that has none, and every mm where notifiers are compiled out, goes its way as if there were
 * none: no file of mm outside this folder and `notifier/hooks.ts` touches `mm.remotes` or `host.remoteAreas`. Where they are called, and why there: remotes.ts.
 */

/** Accounts for what other threads have mapped: before ptes are counted or listed. */
export function remotesDrain(mm: Mm): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  if (mm.remotes !== undefined) mm.remotes.drain();
}

/** The same for all mms of the host. */
export function remotesDrainAll(host: Host): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  for (const area of host.remoteAreas) area.drain();
}

/** What other threads have in hand and do not use serves who waits for a frame (N26). */
export function remotesTakeBack(host: Host): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  for (const area of host.remoteAreas) area.takeBack();
}

/** An absent pte becomes `pte`; false when another thread was faster. */
export function setAbsentPte(mm: Mm, i: number, pte: number): boolean {
  if (CONFIG_PTE_NOTIFIERS) {
    if (mm.remotes !== undefined) return mm.remotes.publish(i, pte);
  }
  mm.pageTable.set(i, pte);
  return true;
}

/** A write fault of untouched memory was served at `vpn`, whose pte is word `i`: the next ones there may be others' own. */
export function remotesArm(vma: Vma, vpn: number, i: number): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  const { remotes } = vma.mm;
  if (remotes !== undefined) remotes.arm(vma, vpn, i);
}

/** [startVpn, endVpn) of the VMA is about to get these rights and flags. */
export function remotesVmaChanges(vma: Vma, startVpn: number, endVpn: number, prot: number, flags: number): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  const { remotes } = vma.mm;
  if (remotes !== undefined) remotes.vmaChanges(vma, startVpn, endVpn, prot, flags);
}

/** The mm was killed: other threads, too, map nothing any more. */
export function remotesDisarm(mm: Mm): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  if (mm.remotes !== undefined) mm.remotes.disarmAll();
}

/** The mm is about to be unmapped for good: other threads find nothing any more. */
export function remotesDetach(mm: Mm): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  if (mm.remotes !== undefined) mm.remotes.detach();
}

/** Of mms that have exited, those whose tables are not given back yet: for the checker. */
export function remotesKeepTables(host: Host): Set<Mm> {
  const mms = new Set<Mm>();
  if (!CONFIG_PTE_NOTIFIERS) return mms;
  for (const { mm } of host.remoteAreas) if (mm.remotes!.keepsTables) mms.add(mm);
  return mms;
}

/** All of the mm is unmapped. False when its tables must not be given back yet. */
export function remotesExit(mm: Mm): boolean {
  if (!CONFIG_PTE_NOTIFIERS) return true;
  return mm.remotes === undefined || mm.remotes.mmExits();
}

/** Frames that other threads have and nobody has mapped. */
export function nrRemoteFrames(host: Host): number {
  if (!CONFIG_PTE_NOTIFIERS) return 0;
  return host.nrRemoteFrames;
}
