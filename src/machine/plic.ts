import type { Device } from './mmio.js';

/**
 * The platform-level interrupt controller (sifive,plic-1.0.0), with level-triggered sources and one S-mode context a
 * hart: context n is hart n's.
 *
 * A source is pending while its line is high and no claim of it is open. `claim` takes the enabled pending source of the
 * highest priority (the lowest number among equals; the threshold masks the output only), `complete` opens its gateway again: a line that
 * is still high then is pending again.
 *
 * Source: RISC-V Platform-Level Interrupt Controller Specification 1.0.0. Use: `setLevel(source, on)` by devices; every
 * change of a context's output is told to `setExternalInterrupt(hartId, on)`.
 */

export const PLIC_SIZE = 0x0400_0000;
const PENDING = 0x1000;
const ENABLE = 0x2000;
const ENABLE_STRIDE = 0x80;
const CONTEXT = 0x20_0000;
const CONTEXT_STRIDE = 0x1000;
const PRIORITY_MASK = 7;

export interface PlicOptions {
  nrHarts: number;
  /** Sources are 1 to nrSources, at most 1023; 0 is no interrupt. */
  nrSources: number;
  setExternalInterrupt: (hartId: number, on: boolean) => void;
}

interface Context {
  readonly enable: Uint32Array;
  threshold: number;
  output: boolean;
}

export class Plic implements Device {
  readonly name = 'plic';
  private readonly options: PlicOptions;
  private readonly priority: Uint8Array;
  private readonly level: Uint8Array;
  private readonly claimed: Uint8Array;
  private readonly contexts: Context[];

  constructor(options: PlicOptions) {
    const nr = options.nrSources + 1;
    this.options = options;
    this.priority = new Uint8Array(nr);
    this.level = new Uint8Array(nr);
    this.claimed = new Uint8Array(nr);
    this.contexts = Array.from({ length: options.nrHarts }, () => ({
      enable: new Uint32Array((nr + 31) >>> 5),
      threshold: 0,
      output: false,
    }));
  }

  /** The level of a source's line; a source that does not exist is ignored. */
  setLevel(source: number, on: boolean): void {
    if (source < 1 || source > this.options.nrSources) return;
    this.level[source] = on ? 1 : 0;
    this.update();
  }

  read(offset: number, lenBytes: number): number {
    if (lenBytes !== 4 || (offset & 3) !== 0) return 0;
    if (offset < PENDING) return this.priority[offset >>> 2] ?? 0;
    if (offset < ENABLE) return this.pendingWord((offset - PENDING) >>> 2);
    if (offset < CONTEXT) {
      const context = this.contexts[Math.floor((offset - ENABLE) / ENABLE_STRIDE)];
      return context?.enable[((offset - ENABLE) % ENABLE_STRIDE) >>> 2] ?? 0;
    }
    const context = this.contexts[Math.floor((offset - CONTEXT) / CONTEXT_STRIDE)];
    if (context === undefined) return 0;
    const register = (offset - CONTEXT) % CONTEXT_STRIDE;
    return register === 0 ? context.threshold : register === 4 ? this.claim(context) : 0;
  }

  write(offset: number, lenBytes: number, value: number): void {
    if (lenBytes !== 4 || (offset & 3) !== 0) return;
    if (offset < PENDING) this.setPriority(offset >>> 2, value);
    else if (offset >= CONTEXT) this.writeContext(offset - CONTEXT, value);
    else if (offset >= ENABLE) this.writeEnable(offset - ENABLE, value);
    this.update();
  }

  private setPriority(source: number, value: number): void {
    if (source !== 0 && source < this.priority.length) this.priority[source] = value & PRIORITY_MASK;
  }

  private writeEnable(offset: number, value: number): void {
    const context = this.contexts[Math.floor(offset / ENABLE_STRIDE)];
    const word = (offset % ENABLE_STRIDE) >>> 2;
    if (context === undefined || word >= context.enable.length) return;
    context.enable[word] = word === 0 ? value & ~1 : value;
  }

  private writeContext(offset: number, value: number): void {
    const context = this.contexts[Math.floor(offset / CONTEXT_STRIDE)];
    if (context === undefined) return;
    const register = offset % CONTEXT_STRIDE;
    if (register === 0) context.threshold = value & PRIORITY_MASK;
    else if (register === 4 && this.enabled(context, value)) this.claimed[value] = 0;
  }

  /** Complete of a source not enabled for the context is ignored, as the specification says. */
  private enabled(context: Context, source: number): boolean {
    return source < this.level.length && ((context.enable[source >>> 5] >>> (source & 31)) & 1) === 1;
  }

  private pending(source: number): boolean {
    return this.level[source] === 1 && this.claimed[source] === 0;
  }

  private pendingWord(word: number): number {
    let bits = 0;
    for (let bit = 0; bit < 32; bit++) if (this.pending(word * 32 + bit)) bits |= 1 << bit;
    return bits >>> 0;
  }

  /** The source a claim would take, or 0. A claim is not bound by the threshold; the output is. */
  private best(context: Context, threshold: number): number {
    let best = 0;
    let bestPriority = threshold;
    for (let source = 1; source < this.level.length; source++) {
      if (this.priority[source] <= bestPriority || !this.pending(source) || !this.enabled(context, source)) continue;
      best = source;
      bestPriority = this.priority[source];
    }
    return best;
  }

  private claim(context: Context): number {
    const source = this.best(context, 0);
    if (source !== 0) this.claimed[source] = 1;
    this.update();
    return source;
  }

  private update(): void {
    for (let hartId = 0; hartId < this.contexts.length; hartId++) {
      const context = this.contexts[hartId];
      const output = this.best(context, context.threshold) !== 0;
      if (output === context.output) continue;
      context.output = output;
      this.options.setExternalInterrupt(hartId, output);
    }
  }
}
