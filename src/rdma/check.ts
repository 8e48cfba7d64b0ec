import { bug } from '../base/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import type { ContextImpl } from './context.js';
import type { Mr } from './mr.js';
import { E_VALID, E_WRITE, entryPfn, REGION_DEAD, type Region } from './nic/region.js';
import type { Context } from './verbs.js';

/**
 * The whole-state checker of rdma, for tests: throws BrokenInvariant where a region's entries say what its mm does not. Call it where no copy is under way: on the mm
 * thread, between two steps.
 *
 * S11: a demand paged region pins nothing. N3, N5: an entry names the frame that the pte does, and allows no more. N15: a page that may be written is dirty. N8: no
 * bracket is counted that is not open. N17: a region that lives has its subscription, one that does not has no key and no entries.
 */
export function checkRdma(context: Context): void {
  const { mrs, mm } = context as ContextImpl;
  for (const mr of mrs) checkMr(mr);
  for (const mr of mrs) if (mr.mm !== mm) bug('N17', `a region of ${mr.mm.name} is in a context of ${mm.name}`);
}

function checkMr(mr: Mr): void {
  if (!mr.isLive) return;
  if (mr.pinned !== undefined) return checkPinned(mr);
  const [root] = mr.liveRegions();
  if (root!.key() !== mr.lkey)
    bug('N17', `a region's key is 0x${root!.key().toString(16)}, not 0x${mr.lkey.toString(16)}`);
  const tables = mr.table === undefined ? mr.implicit!.tables() : [mr.table];
  for (const table of tables) {
    const { region } = table;
    if (!table.sub.registered) bug('N17', 'a region that lives has no subscription');
    if (table.sub.poisoned === undefined && table.sub.pinned.size > 0) bug('S11', 'a demand paged region pins frames');
    const dead = (region.flags() & REGION_DEAD) !== 0;
    if (!dead && region.seq.inProgress > 0 && !mr.mm.notifiers.inBracket)
      bug('N8', `${region.seq.inProgress} brackets are counted, and none is open`);
    checkEntries(mr, region, dead);
  }
}

function checkEntries(mr: Mr, region: Region, dead: boolean): void {
  let nr = 0;
  for (let page = 0; page < region.nrPages(); page++) {
    const entry = region.entry(page);
    if (entry === 0) continue;
    nr++;
    if (dead) bug('N3', `page ${page} of a region that is dead has an entry`);
    if ((entry & E_VALID) === 0) bug('N3', `entry ${page} is neither empty nor valid`);
    checkEntry(mr, region.vpn() + page, entry);
  }
  if (nr !== region.nrEntries()) bug('N3', `a region counts ${region.nrEntries()} entries and has ${nr}`);
}

function checkEntry(mr: Mr, vpn: number, entry: number): void {
  const where = `the entry for 0x${(vpn * PAGE_SIZE).toString(16)} of ${mr.mm.name}`;
  let found = false;
  mr.mm.forEachPresent(vpn, vpn + 1, (_vpn, pfn, write) => {
    found = true;
    if (pfn !== entryPfn(entry)) bug('N3', `${where} names frame ${entryPfn(entry)}, its pte ${pfn}`);
    if ((entry & E_WRITE) !== 0 && !write) bug('N5', `${where} may write, its pte may not`);
  });
  if (!found) bug('N3', `${where} names frame ${entryPfn(entry)}, and nothing is mapped there`);
}

function checkPinned(mr: Mr): void {
  const { frames } = mr.mm.host;
  for (const pfn of mr.pinned!.pfns)
    if (frames.refcount[pfn]! <= 0) bug('N4', `frame ${pfn} of a pinned region is free`);
}
