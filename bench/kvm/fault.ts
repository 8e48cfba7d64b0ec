import { digits, markdownTable, median, quantile } from '../lib/common.js';
import { Peer } from '../lib/peer.js';
import { TouchGuest } from './touchguest.js';

/**
 * What a fault of the external MMU costs: the page is in the host's page table, and the guest's read finds no entry for it. Linux's KVM and Unpin
 * in turn, each with a guest that reads one byte of each page, guest's own page tables and all; processor time of the
 * whole stretch, so that what else runs on the machine counts little.
 */

const BAR = 15;
/** Rounds before the first that counts: by then the engine has compiled what is run, for its time is the process's too. */
const NR_WARMING = 20;

interface Row {
  readonly name: string;
  readonly operation: 'sequential' | 'each' | 'resident';
  readonly nrPages: number;
  /** Pages from one to the next, as bench/linux-peer/kvm.c has it. */
  readonly stride: number;
  readonly bar?: number;
}

const ROWS: readonly Row[] = [
  { name: 'pages in sequence', operation: 'sequential', nrPages: 16_384, stride: 1, bar: BAR },
  { name: 'pages far from each other', operation: 'each', nrPages: 4096, stride: 8 },
  { name: 'pages in sequence that have entries', operation: 'resident', nrPages: 16_384, stride: 1 },
];
const NR_PAGES = Math.max(...ROWS.map(({ nrPages, stride }) => nrPages * stride));

interface Result {
  readonly row: Row;
  readonly kvm: number[];
  readonly kvmFaults: number[];
  readonly faults: number[];
  readonly unpin: number[];
  readonly thread: number[];
}

/** The vCPU on the host's thread, and in one of its own. */
interface Guests {
  readonly here: TouchGuest;
  readonly thread: TouchGuest;
}

export async function measureFault(rounds: number): Promise<string> {
  const guests: Guests = {
    here: await TouchGuest.create(NR_PAGES, { nrVcpus: 1, threads: false }),
    thread: await TouchGuest.create(NR_PAGES, { nrVcpus: 1, threads: true }),
  };
  const peer = Peer.start('kvm.c');
  const about = await peer.ask('about');
  if (about.startsWith('absent ')) process.stderr.write(`bench: SKIPPED: Linux's KVM: ${about}\n`);
  const results: Result[] = [];
  for (const row of ROWS) {
    results.push(await measureRow(guests, about.startsWith('absent ') ? undefined : peer, row, rounds));
    process.stderr.write(`bench: ${row.name}\n`);
  }
  await peer.stop();
  for (const guest of Object.values(guests)) await guest.close();
  return `${tableOf(results)}\n\nLinux's KVM: ${about}.`;
}

async function measureRow(guests: Guests, peer: Peer | undefined, row: Row, rounds: number): Promise<Result> {
  const { operation, nrPages } = row;
  const result: Result = { row, kvm: [], kvmFaults: [], faults: [], unpin: [], thread: [] };
  for (const guest of Object.values(guests)) await guest.touch(nrPages, row.stride);
  for (let round = -NR_WARMING; round < rounds; round++) {
    const [kvm, faults] = ((await peer?.ask(`${operation} ${nrPages}`)) ?? 'NaN NaN').split(' ').map(Number);
    const unpin = await measureUnpin(guests.here, row);
    const thread = await measureUnpin(guests.thread, row);
    if (round < 0) continue;
    result.kvm.push(kvm! / nrPages);
    result.kvmFaults.push(faults! / nrPages);
    result.unpin.push(unpin.ns / nrPages);
    result.faults.push(unpin.faults / nrPages);
    result.thread.push(thread.ns / nrPages);
  }
  return result;
}

async function measureUnpin(guest: TouchGuest, row: Row): Promise<{ ns: number; faults: number }> {
  // As the peer does: pages that have entries have just been read.
  if (row.operation === 'resident') await guest.touch(row.nrPages, row.stride);
  else guest.takeEntries();
  const { ns, faults, prefetched } = await guest.touch(row.nrPages, row.stride);
  checkFaults(row, faults, prefetched);
  return { ns, faults };
}

/** What was timed must be what the row says. */
function checkFaults({ operation, nrPages, name }: Row, faults: number, prefetched: number): void {
  const own = operation === 'sequential' ? faults + prefetched : faults;
  const ok = operation === 'resident' ? faults < nrPages / 100 : own >= nrPages;
  if (!ok) throw new Error(`bench: ${name}: ${nrPages} pages took ${faults} faults, which entered ${prefetched} more`);
}

function tableOf(results: readonly Result[]): string {
  const columns = ["KVM's faults a page", 'Unpin', 'in a thread', "Unpin's faults a page", 'KVM / Unpin', 'quartiles'];
  const head = ['ns a page', 'KVM', ...columns, 'bar'];
  return markdownTable(head, results.map(cells));
}

function cells({ row, kvm, kvmFaults, faults, unpin, thread }: Result): string[] {
  const ours = [digits(median(unpin)), digits(median(thread)), digits(median(faults))];
  if (Number.isNaN(kvm[0])) return [row.name, 'absent', '', ...ours, '', '', ''];
  const ratios = kvm.map((ns, i) => ns / unpin[i]!);
  const mid = median(ratios);
  return [
    row.name,
    digits(median(kvm)),
    digits(median(kvmFaults)),
    ...ours,
    digits(mid),
    `${digits(quantile(ratios, 0.25))} to ${digits(quantile(ratios, 0.75))}`,
    row.bar === undefined ? '' : `${row.bar} ${mid >= row.bar ? 'kept' : 'MISSED'}`,
  ];
}
