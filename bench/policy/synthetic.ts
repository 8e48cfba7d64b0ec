import { type Trace, TraceBuilder } from './trace.js';

/** Patterns that are known to break one policy or another. Deterministic. */

/** References of an epoch of the synthetic traces. */
const EPOCH = 16;

class Pattern {
  private readonly builder = new TraceBuilder();
  private nr = 0;
  private seed = 12345;

  touch(page: number, write = false): void {
    this.builder.touch(page, write);
    if (++this.nr % EPOCH === 0) this.builder.endEpoch();
  }

  /** Below `n`. */
  random(n: number): number {
    this.seed = (Math.imul(this.seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.seed / 2 ** 32) * n);
  }

  build(name: string): Trace {
    return this.builder.build(name);
  }
}

/** `nrPages` one after the other, again and again: LRU misses all of it as soon as it does not fit. */
export function loop(nrPages: number, rounds: number): Trace {
  const pattern = new Pattern();
  for (let k = 0; k < nrPages * rounds; k++) pattern.touch(k % nrPages, true);
  return pattern.build('loop');
}

/** `nrHot` pages used all the time; beside them a scan over `nrCold`, each once, between phases without any. */
export function scanBesideHotSet(nrHot: number, nrCold: number, rounds: number): Trace {
  const pattern = new Pattern();
  for (let round = 0; round < rounds; round++) {
    for (let k = 0; k < nrHot * 4; k++) pattern.touch(pattern.random(nrHot), true);
    for (let k = 0; k < nrCold; k++) {
      pattern.touch(nrHot + k);
      if (k % 2 === 0) pattern.touch(pattern.random(nrHot));
    }
  }
  return pattern.build('scan beside a hot set');
}

/** A hot set of `nrHot` of `nrPages`, and another one in each phase; one reference in eight goes anywhere. */
export function shiftingHotSets(nrPages: number, nrHot: number, phases: number): Trace {
  const pattern = new Pattern();
  for (let phase = 0; phase < phases; phase++) {
    const first = pattern.random(nrPages - nrHot);
    for (let k = 0; k < nrHot * 12; k++) {
      const page = k % 8 === 7 ? pattern.random(nrPages) : first + pattern.random(nrHot);
      pattern.touch(page, k % 3 === 0);
    }
  }
  return pattern.build('shifting hot sets');
}

/** Pages by Zipf's law: a few are used most of the time. */
export function zipf(nrPages: number, nrRefs: number): Trace {
  const pattern = new Pattern();
  for (let k = 0; k < nrRefs; k++) {
    const rank = Math.floor(nrPages ** (pattern.random(2 ** 30) / 2 ** 30)) - 1;
    pattern.touch((rank * 7919) % nrPages, k % 4 === 0);
  }
  return pattern.build('Zipf');
}
