import { digits, markdownTable, median, quantile } from '../lib/common.js';
import { runUnpin } from '../lib/unpinrun.js';
import { DRIVERS, type Driver, guestArgs } from './drivers.js';

/** What a guest's kernel and its processes do all day, timed by the guest (guests/lguest/user.c), in rounds, of which the first warms up. */

const ROUNDS = 6;
const NS_PER_TICK = 100;
const MEMORY = ['--guests', '1', '--ram', '32M', '--frames', '64M'];
const OPERATIONS: Record<string, string> = {
  hypercall: 'hypercall, or SBI call',
  syscall: 'system call',
  fault: 'page fault of a process: a new page',
  switch: 'context switch',
  fork: 'fork + exit + wait',
};

type Samples = Record<string, number[]>;

/** Nanoseconds an operation, of each round but the first. */
function measure(driver: Driver): Samples {
  const console = runUnpin([...guestArgs(driver, `bench=${ROUNDS}`), ...MEMORY]);
  const samples: Samples = {};
  for (const [, name, operations, ticks] of console.matchAll(/bench (\w+) (\d+) (\d+)/g))
    (samples[name!] ??= []).push((Number(ticks) * NS_PER_TICK) / Number(operations));
  return Object.fromEntries(Object.entries(samples).map(([name, ns]) => [name, ns.slice(1)]));
}

/** Both in turn; a run is the median of its rounds. */
export function measureOperations(runs: number): string {
  const results: Record<Driver, Samples> = { lguest: {}, kvm: {} };
  for (let run = 0; run < runs; run++) {
    for (const driver of DRIVERS)
      for (const [name, ns] of Object.entries(measure(driver))) (results[driver][name] ??= []).push(median(ns));
    process.stderr.write(`bench: operations: run ${run + 1} of ${runs}\n`);
  }
  const head = ['ns an operation', 'lguest', 'kvm', 'lguest / kvm', 'quartiles'];
  const rows = Object.keys(OPERATIONS).map((name) => cells(name, results.lguest[name], results.kvm[name]));
  return markdownTable(head, rows);
}

function cells(name: string, lguest: readonly number[] | undefined, kvm: readonly number[] | undefined): string[] {
  if (lguest === undefined || kvm === undefined) throw new Error(`bench: the guests do not measure '${name}'`);
  const ratios = lguest.map((ns, i) => ns / kvm[i]!);
  const spread = `${digits(quantile(ratios, 0.25))} to ${digits(quantile(ratios, 0.75))}`;
  return [OPERATIONS[name]!, digits(median(lguest)), digits(median(kvm)), digits(median(ratios)), spread];
}
