import { hex, pageRange, refuse } from '../args.js';
import { FAULT_FLAG_WRITE } from '../fault/faultcode.js';
import { populateOne } from '../fault/populate.js';
import { punchHole } from '../file/truncate.js';
import { PAGE_SIZE, vpnToVa } from '../layout.js';
import type { Mm } from '../mm.js';
import { MADV_POPULATE_WRITE, MADV_REMOVE, type MadviseWaits } from './madvise.js';
import { PROT_READ, PROT_WRITE, type Vma } from './vma.js';

/** The advice of madvise that waits: MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_REMOVE. After every wait the VMA is looked up again. */

export async function madviseWait(mm: Mm, va: number, length: number, advice: MadviseWaits): Promise<void> {
  const [startVpn, endVpn] = pageRange('madvise', va, length, 'EINVAL');
  if (advice === MADV_REMOVE) await removeRange(mm, startVpn, endVpn);
  else await populateRange(mm, startVpn, endVpn, advice === MADV_POPULATE_WRITE);
}

/** Every page of the range, in order, until one cannot be had: a hole is ENOMEM, a right that is missing EINVAL. */
async function populateRange(mm: Mm, startVpn: number, endVpn: number, write: boolean): Promise<void> {
  for (let vpn = startVpn; vpn < endVpn; vpn++) {
    const vma = mm.vmas.find(vpn);
    const where = `address ${hex(vpnToVa(vpn))} of ${mm.name}`;
    if (vma === undefined) refuse('ENOMEM', 'madvise', `${where} must be mapped`);
    if ((vma.prot & (write ? PROT_WRITE : PROT_READ)) === 0)
      refuse('EINVAL', 'madvise', `${where} must be mapped for ${write ? 'writing' : 'reading'}`);
    await populateOne(mm, vpn, write ? FAULT_FLAG_WRITE : 0, (error) => {
      throw error;
    });
  }
}

/** A hole in the files: what is mapped of the range is zeros in them, for all who map or read them. */
async function removeRange(mm: Mm, startVpn: number, endVpn: number): Promise<void> {
  let next = startVpn;
  let hole = false;
  while (next < endVpn) {
    const vma = mm.vmas.firstEndingAfter(next);
    if (vma === undefined || vma.startVpn >= endVpn) break;
    hole ||= vma.startVpn > next;
    const from = Math.max(vma.startVpn, next);
    next = Math.min(vma.endVpn, endVpn);
    await removePart(vma, from, next);
  }
  if (hole || next < endVpn) refuse('ENOMEM', 'madvise', 'every page of the range must be mapped; what is was removed');
}

async function removePart(vma: Vma, from: number, to: number): Promise<void> {
  const where = `the mapping at ${hex(vma.start)}`;
  const mapping = vma.file?.mapping;
  if (vma.locked || mapping === undefined) refuse('EINVAL', 'madvise', `${where} must be of a file, and not locked`);
  if (!vma.shared) refuse('EACCES', 'madvise', `${where} must be shared, of a file that is open for writing`);
  if (mapping.store !== undefined && mapping.store.punchHole === undefined)
    refuse('EOPNOTSUPP', 'madvise', `store ${mapping.name} cannot punch holes`);
  const start = vma.pgoffOf(from) * PAGE_SIZE;
  const end = start + (to - from) * PAGE_SIZE;
  await mapping.inodeLock.run(() => punchHole(vma.mm.host, mapping, start, end));
}
