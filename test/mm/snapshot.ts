import type { Host, Mm } from '../../src/mm/index.js';

/** All of an mm that a refused call must leave alone, and of its host, as plain data to compare. */
export function snapshot(mm: Mm): unknown {
  const ptes: [number, number][] = [];
  mm.pageTable.visit((vpn, pte) => ptes.push([vpn, pte]));
  return {
    vmas: mm.vmas.all().map((v) => [v.startVpn, v.endVpn, v.prot, v.flags, v.pgoff, v.anonVma?.id]),
    ptes,
    vm: { ...mm.vm },
    rlimits: { ...mm.rlimits },
    defFlags: mm.defFlags,
    resident: mm.residentPages,
    host: hostSnapshot(mm.host),
  };
}

function hostSnapshot(host: Host): unknown {
  const { frames, swap, lru, tables } = host;
  return {
    flags: [...frames.flags],
    refcount: [...frames.refcount],
    mapcount: [...frames.mapcount],
    nrFree: frames.nrFree,
    swapFree: swap.nrFree,
    lru: [...lru.nr],
    tables: tables.bytesInUse,
    brackets: host.vmstat.brackets,
    starts: host.vmstat.notifierCalls.invalidateRangeStart,
  };
}
