import { availableParallelism } from 'node:os';
import { PAGE_SIZE, PROT_READ, PROT_WRITE } from '../../src/mm/index.js';
import { digits, markdownTable, quantile } from '../lib/common.js';
import { TouchGuest, type TouchOptions } from './touchguest.js';

/**
 * How long the host waits when it takes a page's rights away from a guest that uses it: mprotect of one page, whose notifier returns when no vCPU
 * can reach the page by its TLB any more. The vCPUs read a few pages over and over.
 */

const NR_PAGES = 64;
const SAMPLES_A_ROUND = 100;
/** The vCPU on the thread of the host is never in the guest then; those in threads are, and the host waits for each. */
const CASES: readonly ({ readonly name: string } & TouchOptions)[] = [
  { name: "1, on the host's thread", nrVcpus: 1, threads: false },
  { name: '1, in a thread', nrVcpus: 1, threads: true },
  { name: '2, in threads', nrVcpus: 2, threads: true },
  { name: '4, in threads', nrVcpus: 4, threads: true },
];
/** Until the engine has compiled all of it: the first calls take fifty times as long. */
const WARMING_ROUNDS = 100;

export async function measureShootdown(rounds: number): Promise<string> {
  const rows: string[][] = [];
  const processors = availableParallelism();
  for (const { name, ...options } of CASES) {
    const us = await sample(options, rounds * SAMPLES_A_ROUND);
    const what = options.threads && options.nrVcpus >= processors ? `${name}: oversubscribed` : name;
    rows.push([what, ...[0.5, 0.9, 0.99, 1].map((q) => digits(quantile(us, q)))]);
    process.stderr.write(`bench: shootdown with ${name}\n`);
  }
  const table = markdownTable(['µs, by runnable vCPUs', 'p50', 'p90', 'p99', 'greatest'], rows);
  return `${table}\n\nProcessors: ${processors}, one of which the host needs.`;
}

async function sample(options: TouchOptions, nrSamples: number): Promise<number[]> {
  const guest = await TouchGuest.create(NR_PAGES, options);
  await warm(guest);
  const runs = guest.vcpus.map((vcpu) => guest.touchForEver(vcpu, NR_PAGES));
  const us: number[] = [];
  const before = guest.host.stats().shootdowns;
  for (let i = 0; i < nrSamples; i++) {
    // The vCPUs have their turns meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 1));
    us.push(take(guest, i % NR_PAGES));
  }
  const nr = guest.host.stats().shootdowns - before;
  for (const vcpu of guest.vcpus) vcpu.immediateExit();
  await Promise.all(runs);
  await guest.close();
  if (nr < nrSamples) throw new Error(`bench: ${nr} shootdowns where there must be ${nrSamples}`);
  return us;
}

async function warm(guest: TouchGuest): Promise<void> {
  for (let round = 0; round < WARMING_ROUNDS; round++) {
    await guest.touch(NR_PAGES, 1);
    for (let i = 0; i < NR_PAGES; i++) take(guest, i);
  }
}

/** Microseconds for one page; its rights are given back after that. */
function take(guest: TouchGuest, i: number): number {
  const { mm } = guest;
  const hva = guest.pageHva(i);
  const start = performance.now();
  mm.mprotect(hva, PAGE_SIZE, PROT_READ);
  const us = (performance.now() - start) * 1000;
  mm.mprotect(hva, PAGE_SIZE, PROT_READ | PROT_WRITE);
  return us;
}
