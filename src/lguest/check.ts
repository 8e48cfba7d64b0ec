import { bug } from '../base/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import type { LgCpu } from './cpu.js';
import type { Lguest } from './lguest.js';
import { NR_PGDIRS, vpnToVa } from './pgdirs.js';
import { NR_ENTRIES, ROOT_LEVEL, SPTE_V, SPTE_W } from './shadowtables.js';

/**
 * The whole-state checker of a guest, for tests, while it is outside. Throws BrokenInvariant.
 *
 * S10: the chain of a guest page is exactly the shadow entries that show it, so that a notifier finds them all; the TLB knows nothing that a shadow entry which the guest may be
 * using does not allow, so that it is bumped out with them; and no page is locked for it. N3, N5: a shadow entry, and decoded code, hang on what the host maps, and allow no more.
 */
export function checkLguest(lg: Lguest): void {
  const { cpu } = lg;
  const host = hostPages(cpu);
  checkTables(cpu);
  checkEntries(cpu, host);
  checkCodes(cpu, host);
  checkTlb(cpu);
  if (!lg.isPinned && lg.mm.vm.locked > 0) bug('S10', `${lg.mm.vm.locked} pages of ${lg.mm.name} are locked`);
}

type HostPages = ReadonlyMap<number, { pfn: number; write: boolean }>;

/** What the host maps, by page of the guest. */
function hostPages({ mm, access }: LgCpu): HostPages {
  const pages = new Map<number, { pfn: number; write: boolean }>();
  const first = access.base / PAGE_SIZE;
  mm.forEachPresent(first, first + access.pfnLimit, (vpn, pfn, write) => pages.set(vpn - first, { pfn, write }));
  return pages;
}

/** Each table is free, or below one root, once, where it says. */
function checkTables({ directories }: LgCpu): void {
  const { tables } = directories;
  let nr = 0;
  const visit = (table: number, directory: number, level: number, firstVpn: number) => {
    nr++;
    if (tables.directory[table] !== directory || tables.level[table] !== level || tables.firstVpn[table] !== firstVpn)
      bug('S10', `shadow table ${table} is not where it says`);
    if (level === 0) return;
    for (let i = 0; i < NR_ENTRIES; i++) {
      const child = tables.entries[table * NR_ENTRIES + i]! - 1;
      if (child >= 0) visit(child, directory, level - 1, firstVpn + (i << (9 * level)));
    }
  };
  for (let directory = 0; directory <= NR_PGDIRS; directory++) visit(directory, directory, ROOT_LEVEL, 0);
  if (nr + tables.nrFree !== tables.nrTables) bug('S10', `${tables.nrTables - nr} shadow tables lead nowhere`);
}

function checkEntries({ directories, access }: LgCpu, host: HostPages): void {
  const { tables, rmap } = directories;
  let nrChained = 0;
  for (let gfn = 0; gfn < access.pfnLimit; gfn++) {
    const page = host.get(gfn);
    for (let index = rmap.first(gfn); index >= 0; index = rmap.after(index)) {
      nrChained++;
      const spte = tables.entries[index]!;
      if ((spte & SPTE_V) === 0 || rmap.gfn(index) !== gfn) bug('S10', `entry ${index} is in the chain of page ${gfn}`);
      if (page?.pfn !== spte >>> 12) bug('N3', `page ${gfn} shows frame ${spte >>> 12}, the host maps ${page?.pfn}`);
      if ((spte & SPTE_W) !== 0 && !page.write) bug('N5', `page ${gfn} may be written, the host's pte may not`);
    }
  }
  let nrEntries = 0;
  for (let table = 0; table < tables.nrTables; table++) {
    if (tables.directory[table]! < 0 || tables.level[table] !== 0) continue;
    for (let i = 0; i < NR_ENTRIES; i++) if (tables.entries[table * NR_ENTRIES + i] !== 0) nrEntries++;
  }
  if (nrEntries !== nrChained) bug('S10', `${nrEntries} shadow entries, ${nrChained} of them in chains`);
}

function checkCodes({ directories }: LgCpu, host: HostPages): void {
  directories.codes.forEach((pfn, gfn) => {
    if (pfn !== 0 && host.get(gfn)?.pfn !== pfn) bug('N3', `code of page ${gfn} is decoded from frame ${pfn}`);
  });
}

function checkTlb({ directories, hart }: LgCpu): void {
  hart.forEachTlbEntry((va, hostAddress, write) => {
    const vpn = Math.floor(va / PAGE_SIZE) & (2 ** 27 - 1);
    const index = directories.find(vpn);
    const spte = index < 0 ? 0 : directories.tables.entries[index]!;
    const allowed = spte !== 0 && spte >>> 12 === hostAddress >>> 12 && (!write || (spte & SPTE_W) !== 0);
    if (!allowed || vpnToVa(vpn) !== va)
      bug('S10', `the TLB maps 0x${va.toString(16)} to 0x${hostAddress.toString(16)}`);
  });
}
