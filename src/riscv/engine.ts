import { compile, instantiateModule, type WasmMemory } from '../base/index.js';
import { Hart, type HartOptions } from './hart.js';
import { generateInterpreter } from './interp.js';
import * as L from './layout.js';
import { DecodedPages, type PageOps } from './records.js';
import { TaggedHart } from './taggedhart.js';
import { TaggedTlb } from './taggedtlb.js';
import { HartTlb, type TlbOps } from './tlb.js';

/**
 * What all harts in one memory share: the instantiated interpreter, and the decoded code.
 */

export interface EngineOptions {
  readonly memory: WasmMemory;
  /** Room in that memory, zeroed or not; throws when there is none. */
  readonly alloc: (lenBytes: number, align: number) => number;
  readonly free: (address: number, lenBytes: number) => void;
  /** Pages of code kept decoded, 20 KiB each; default 2048, at least 2: an instruction may lie in two. */
  readonly nrDecodedPages?: number;
  /** The host orders memory accesses as x86 does (total store order): most fences cost nothing there. Default false. */
  readonly hostIsTso?: boolean;
  /** For test builds: byte address of an int32 for each page of the memory, by which harts know pages that are not theirs any more (taggedhart.ts). */
  readonly tagsAddr?: number;
  /** What `compileInterpreter` made, perhaps in another thread, for the same hostIsTso and tagsAddr. */
  readonly interpreter?: InterpreterModule;
}

const DEFAULT_DECODED_PAGES = 2048;
const MIN_DECODED_PAGES = 2;

/** What threads share of the interpreter: compiled once, instantiated in each. Structured-cloneable. */
export type InterpreterModule = object;

/** The interpreter is the same for every engine of the thread with the same options. */
const compiled = new Map<string, InterpreterModule>();

function compileInterpreter(options: Pick<EngineOptions, 'hostIsTso' | 'tagsAddr'>): InterpreterModule {
  const { hostIsTso = false, tagsAddr } = options;
  const key = `${hostIsTso} ${tagsAddr}`;
  const known = compiled.get(key);
  if (known !== undefined) return known;
  const module = compile(generateInterpreter({ hostIsTso, ...(tagsAddr !== undefined && { tagsAddr }) }));
  compiled.set(key, module);
  return module;
}

export class RiscvEngine {
  readonly i32: Int32Array;
  readonly i64: BigInt64Array;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly records: DecodedPages;
  /** For engines of other threads on the same memory. */
  readonly interpreter: InterpreterModule;
  /** `memory.fill`. */
  readonly fill: (address: number, byte: number, lenBytes: number) => void;
  /** What TLB tables need of the generated module (tlbfunctions.ts). */
  readonly tlbOps: TlbOps;
  private readonly options: EngineOptions;
  private readonly harts = new Map<number, Hart>();
  private readonly runWasm: (base: number, budget: number) => number;

  constructor(options: EngineOptions) {
    const { buffer } = options.memory;
    this.options = options;
    this.i32 = new Int32Array(buffer);
    this.i64 = new BigInt64Array(buffer);
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.interpreter = options.interpreter ?? compileInterpreter(options);
    const exports = instantiateModule(this.interpreter, { env: this.imports() });
    const { run, ...pageOps } = exports as unknown as PageOps &
      TlbOps & { run: (base: number, budget: number) => number };
    this.runWasm = run;
    this.tlbOps = pageOps;
    this.fill = pageOps.fill;
    const nrPages = Math.max(options.nrDecodedPages ?? DEFAULT_DECODED_PAGES, MIN_DECODED_PAGES);
    const base = options.alloc(DecodedPages.lenBytes(nrPages, buffer.byteLength), 64);
    this.records = new DecodedPages(buffer, base, nrPages, pageOps, () => this.forgetRecords());
  }

  /** Bytes that `nrDecodedPages` take of a memory of `memoryBytes`. */
  static bytesOf(nrDecodedPages: number, memoryBytes: number): number {
    return DecodedPages.lenBytes(Math.max(nrDecodedPages, MIN_DECODED_PAGES), memoryBytes);
  }

  private imports(): Record<string, unknown> {
    return {
      memory: this.options.memory,
      fetch: (base: number) => this.harts.get(base)!.onFetch(),
      slow: (base: number, record: number) => this.harts.get(base)!.onSlow(record),
      stale: (base: number, va: bigint, address: number) =>
        (this.harts.get(base) as TaggedHart).stale(Number(va), address >>> 0),
    };
  }

  /** For a hart at `base`. */
  createTlb(base: number): HartTlb {
    const { tagsAddr } = this.options;
    return tagsAddr === undefined ? new HartTlb(this, base) : new TaggedTlb(this, base, tagsAddr);
  }

  createHart(options: HartOptions): Hart {
    const base = this.options.alloc(L.HART_BYTES, 64);
    return this.addHart(base, options);
  }

  private addHart(base: number, options: HartOptions): Hart {
    const { tagsAddr } = this.options;
    const hart = tagsAddr === undefined ? new Hart(this, base, options) : new TaggedHart(this, base, options);
    this.harts.set(base, hart);
    return hart;
  }

  /** The hart at `base`, which another thread's engine has created, to be run by this thread. That engine destroys it. */
  attachHart(base: number, options: HartOptions): Hart {
    return this.addHart(base, { ...options, attach: true });
  }

  destroyHart(hart: Hart): void {
    if (this.harts.delete(hart.base)) this.options.free(hart.base, L.HART_BYTES);
  }

  run(hart: Hart, budget: number): number {
    return this.runWasm(hart.base, budget);
  }

  /** Records of `hostPage`; while there are any, no TLB lets the page be written. */
  recordsOf(hostPage: number): number {
    if (!this.records.has(hostPage)) for (const hart of this.harts.values()) hart.tlb.forbidWrites(hostPage);
    return this.records.get(hostPage);
  }

  /** Code may have been written by others: `fence.i`, and before a page that was taken away comes back as another. */
  doubtCode(): void {
    this.records.doubt();
    this.forgetRecords();
  }

  private forgetRecords(): void {
    for (const hart of this.harts.values()) hart.tlb.flushFetches();
  }
}
