import { expect } from 'vitest';
import * as A from '../../src/lguest/index.js';
import { LguestDeath } from '../../src/lguest/index.js';
import { checkHost } from '../../src/mm/index.js';
import { ECALL } from '../isa/assemble.js';
import { EDGE_INTEGERS, Random } from '../isa/random.js';
import {
  FIRST_DATA_PAGE as DATA,
  DATA_PAGE,
  KERNEL,
  newDevice,
  newHost,
  notify,
  PAGE,
  ROOT_PAGE,
  SP,
  STACK_PAGE,
  TestGuest,
  USER,
} from './testguest.js';

/**
 * Guests that do anything at all: hypercalls by ecall and through the ring, page tables, struct lguest_data, trap frames and code of random bits, near what makes sense and far from it. Each
 * goes on or dies with a reason; the host, and a neighbour, are whole after every step.
 */

const NR_STEPS = 40;
const CALLS = Object.entries(A)
  .filter(([name]) => name.startsWith('LHCALL_') && !/RING|INIT/.test(name))
  .map(([, call]) => call as number);

/** Something near to what makes sense, most often. */
function value(r: Random): bigint {
  const page = BigInt(r.below(70));
  return r.pick([
    () => page * 4096n,
    () => KERNEL + page * 4096n + BigInt(r.below(5) * 16),
    () => USER + BigInt(r.below(3) * 4096),
    () => (page << 10n) | BigInt(r.below(1024)),
    () => BigInt(r.below(70)),
    () => r.pick(EDGE_INTEGERS),
    () => r.next(),
  ])();
}

type Step = (t: TestGuest, r: Random) => Promise<unknown>;

async function hcall(t: TestGuest, r: Random): Promise<unknown> {
  if (r.oneIn(3)) t.lg.setreg(SP, value(r));
  const call = r.oneIn(40) ? r.pick([1, 999, 2 ** 40]) : r.pick(CALLS);
  return t.hcall(call, value(r), value(r), value(r), value(r));
}

async function ring(t: TestGuest, r: Random): Promise<unknown> {
  const calls = Array.from({ length: 1 + r.below(5) }, () => {
    const call = r.oneIn(40) ? r.below(300) : r.pick(CALLS.filter((c) => c !== A.LHCALL_SRET));
    return [call, value(r), value(r), value(r), value(r)] as const;
  });
  await t.ring(r.below(64), ...calls);
  return t.hcall(A.LHCALL_FLUSH_ASYNC);
}

/** Doublewords of a page at which the guest and the host look. */
const scribble =
  (pages: readonly number[]): Step =>
  async (t, r) => {
    const page = r.pick(pages);
    for (let n = 1 + r.below(4); n > 0; n--) await t.write64(page * PAGE + r.below(512) * 8, value(r));
  };

async function access(t: TestGuest, r: Random): Promise<unknown> {
  return r.oneIn(2) ? t.load(value(r)) : t.store(value(r), r.next());
}

/** To a process, or the kernel, wherever it is. */
async function sret(t: TestGuest, r: Random): Promise<unknown> {
  return t.sret(r.oneIn(2) ? USER : value(r), r.below(0x200), value(r), value(r));
}

async function requests(t: TestGuest, r: Random): Promise<unknown> {
  t.lg.irq(r.below(32));
  if (r.oneIn(4)) t.lg.trap(r.below(32), r.next());
  return t.lg.run();
}

async function code(t: TestGuest, r: Random): Promise<unknown> {
  const page = 50 + r.below(4);
  for (let n = 0; n < 8; n++) await t.write64(page * PAGE + n * 8, r.next());
  return t.call(page * PAGE);
}

async function host(t: TestGuest, r: Random): Promise<unknown> {
  if (r.oneIn(2)) t.evict();
  else t.mm.madvise(t.base + r.below(64) * PAGE, PAGE, 4);
  return undefined;
}

const STEPS: readonly Step[] = [
  ...[hcall, hcall, hcall, ring, access, access, sret, requests, code, host],
  scribble([ROOT_PAGE, 5, 6, 7, 8]),
  scribble([DATA_PAGE]),
  scribble([STACK_PAGE]),
  scribble([0, DATA]),
];

/** A step ends when the launcher must act, with the guest's death, or, where the guest would go on for ever, with a signal. */
async function doStep(t: TestGuest, r: Random): Promise<void> {
  const timer = setTimeout(() => t.lg.signal(), 2);
  try {
    await r.pick(STEPS)(t, r);
  } catch (error) {
    const { message } = error as Error;
    if (!(error instanceof LguestDeath) && !message.startsWith('came out') && !message.startsWith('EINTR')) throw error;
    // A guest may power off without a word; one that is killed has a reason.
    if (error instanceof LguestDeath && error.how === 'killed') expect(message).toMatch(/./);
  } finally {
    clearTimeout(timer);
  }
}

/** Runs guests with these seeds. Returns how often they died of what. */
export async function fuzz(firstSeed: number, nrSeeds: number): Promise<ReadonlyMap<string, number>> {
  const theHost = newHost(300);
  const device = newDevice(theHost);
  const neighbour = await TestGuest.paged({ host: theHost, device });
  const reasons = new Map<string, number>();
  await neighbour.store(neighbour.va(DATA * PAGE), 7n);
  for (let seed = firstSeed; seed < firstSeed + nrSeeds; seed++) {
    const r = new Random(seed);
    const options = { host: theHost, device, init: { deviceLimit: 66 } };
    const t = await TestGuest.paged(options);
    await t.process(DATA, [], ECALL);
    const handler = t.va(await t.code(...notify(99)));
    const vectors = r.oneIn(8) ? 0 : A.LGUEST_NR_VECTORS;
    for (let v = 0; v < vectors; v++) t.lg.cpu.traps.setHandler(v, Number(BigInt.asIntN(64, handler)));
    t.lg.setreg(SP, t.va(STACK_PAGE * PAGE + 2048));
    for (let step = 0; step < NR_STEPS && t.lg.cpu.fate.death === undefined; step++) {
      await doStep(t, r);
      t.check();
    }
    const reason = t.lg.cpu.fate.death?.message.replaceAll(/0x[0-9a-f]+|\d+/g, 'N').slice(0, 24) ?? 'lives';
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    t.lg.close();
    t.mm.exit();
    expect(await neighbour.load(neighbour.va(DATA * PAGE))).toBe(7n);
    neighbour.check();
  }
  neighbour.end();
  checkHost(theHost);
  return reasons;
}
