import { digits, markdownTable, median, quantile } from '../lib/common.js';
import { Peer } from '../lib/peer.js';
import { TouchGuest } from './touchguest.js';

/**
 * What a fault of the external MMU costs: the page is in the host's page table, and the guest's read finds no entry for it. Linux's KVM and Unpin
 * in turn, each with a guest that reads one byte of each page, guest's own page tables and all; processor time of the
 * whole stretch, so that what else runs on the machine counts little. A turn is several such stretches, of which the first, whose caches the other
 * side has just emptied, is told by itself too: one of Unpin's takes but a millisecond.
 */

const BAR = 15;
/** Rounds before the first that counts: by then the engine has compiled what is run, for its time is the process's too. */
const NR_WARMING = 10;
/** Stretches of a turn. */
const NR_TOUCHES = 20;

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

/** Nanoseconds and faults a page. */
interface Touch {
  readonly ns: number;
  readonly faults: number;
}

/** By round: the stretches of a turn, in their order. */
interface Result {
  readonly row: Row;
  readonly kvm: Touch[][];
  readonly unpin: Touch[][];
  readonly thread: Touch[][];
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
  const { nrPages, stride } = row;
  const result: Result = { row, kvm: [], unpin: [], thread: [] };
  for (const guest of Object.values(guests)) await guest.touch(nrPages, stride);
  for (let round = -NR_WARMING; round < rounds; round++) {
    const kvm = await turn(row, () => measureKvm(peer, row));
    const unpin = await turn(row, () => measureUnpin(guests.here, row));
    const thread = await turn(row, () => measureUnpin(guests.thread, row));
    if (round < 0) continue;
    result.kvm.push(kvm);
    result.unpin.push(unpin);
    result.thread.push(thread);
  }
  return result;
}

async function turn({ nrPages }: Row, touch: () => Promise<Touch>): Promise<Touch[]> {
  const touches: Touch[] = [];
  for (let i = 0; i < NR_TOUCHES; i++) {
    const { ns, faults } = await touch();
    touches.push({ ns: ns / nrPages, faults: faults / nrPages });
  }
  return touches;
}

async function measureKvm(peer: Peer | undefined, { operation, nrPages }: Row): Promise<Touch> {
  const answer = (await peer?.ask(`${operation} ${nrPages}`)) ?? 'NaN NaN';
  const [ns, faults] = answer.split(' ').map(Number);
  return { ns: ns!, faults: faults! };
}

async function measureUnpin(guest: TouchGuest, row: Row): Promise<Touch> {
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
  const first = (result: Result) => cells(result, ', the first after the other side', ([touch]) => touch!.ns);
  return markdownTable(
    head,
    results.flatMap((result) => (result.row.operation === 'resident' ? [all(result)] : [all(result), first(result)])),
  );
}

function all(result: Result): string[] {
  return cells(result, '', (touches) => mean(touches.map(({ ns }) => ns)), result.row.bar);
}

/** @param of what counts of the stretches of a turn. */
function cells(result: Result, name: string, of: (touches: readonly Touch[]) => number, bar?: number): string[] {
  const { row, kvm, unpin, thread } = result;
  const faults = (turns: readonly Touch[][]) => digits(median(turns.map((t) => mean(t.map((touch) => touch.faults)))));
  const ours = [digits(median(unpin.map(of))), digits(median(thread.map(of))), faults(unpin)];
  if (Number.isNaN(kvm[0]![0]!.ns)) return [row.name + name, 'absent', '', ...ours, '', '', ''];
  const ratios = kvm.map((touches, i) => of(touches) / of(unpin[i]!));
  const mid = median(ratios);
  return [
    row.name + name,
    digits(median(kvm.map(of))),
    faults(kvm),
    ...ours,
    digits(mid),
    `${digits(quantile(ratios, 0.25))} to ${digits(quantile(ratios, 0.75))}`,
    bar === undefined ? '' : `${bar} ${mid >= bar ? 'kept' : 'MISSED'}`,
  ];
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
