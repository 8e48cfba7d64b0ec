import { readdirSync, readFileSync } from 'node:fs';

/**
 * How long the threads of a process ran, and how long they waited for a processor though they could have run: Linux's /proc/PID/task/TID/schedstat, in nanoseconds. What the kernel does in
 * interrupts, as the receiving half of TCP on the loopback interface, is nobody's there.
 *
 * Use: `const before = threadTimes(pid)`, work, `threadShares(pid, before, elapsedMs)`.
 */

export type ThreadTimes = ReadonlyMap<number, { readonly ranNs: number; readonly waitedNs: number }>;

/** Of the elapsed time: ran, and waited to run. */
export interface Share {
  readonly ran: number;
  readonly waited: number;
}

/** Of one process: its main thread, the one that was busiest besides (its NIC), and the sum of all others (Node's pool, the compiler, the collector). */
export interface Shares {
  readonly main: Share;
  readonly nic: Share;
  readonly others: Share;
}

export function threadTimes(pid: number): ThreadTimes {
  const times = new Map<number, { ranNs: number; waitedNs: number }>();
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const [ranNs, waitedNs] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ').map(Number);
    times.set(Number(tid), { ranNs: ranNs!, waitedNs: waitedNs! });
  }
  return times;
}

export function threadShares(pid: number, before: ThreadTimes, elapsedMs: number): Shares {
  const none = { ranNs: 0, waitedNs: 0 };
  const all = [...threadTimes(pid)].map(([tid, { ranNs, waitedNs }]) => {
    const from = before.get(tid) ?? none;
    return {
      tid,
      ran: (ranNs - from.ranNs) / (elapsedMs * 1e6),
      waited: (waitedNs - from.waitedNs) / (elapsedMs * 1e6),
    };
  });
  const main = all.find(({ tid }) => tid === pid)!;
  const [nic = main, ...rest] = all.filter(({ tid }) => tid !== pid).sort((a, b) => b.ran - a.ran);
  const sum = (value: (share: Share) => number) => rest.reduce((total, share) => total + value(share), 0);
  return { main, nic, others: { ran: sum(({ ran }) => ran), waited: sum(({ waited }) => waited) } };
}
