import { type Code, I32, I64, instantiate, ModuleBuilder, type WasmMemory } from '../../base/index.js';
import { PAGE_SIZE } from '../layout.js';

/**
 * Operations on whole pages of the host's memory, by byte offset, as a small WebAssembly module.
 *
 * WHY: on typed arrays over shared memory `fill(0)` of a page takes 20 times as long as `memory.fill`.
 *
 * `checksum` is XXH64 of the page, seeded with slot and generation, cut to 32 bits.
 */
export interface PageOps {
  zero(pa: number): void;
  fill(pa: number, byte: number): void;
  /** Zeros any number of bytes. */
  clear(pa: number, lenBytes: number): void;
  copy(dstPa: number, srcPa: number): void;
  /** 1 if the page is one 64-bit value repeated, else 0. */
  isSameFilled(pa: number): number;
  firstWord(pa: number): bigint;
  /** Repeats a 64-bit value over the page. */
  fillWords(pa: number, value: bigint): void;
  /** As an int32. */
  checksum(pa: number, slot: number, generation: number): number;
}

const PRIME1 = 0x9e3779b185ebca87n;
const PRIME2 = 0xc2b2ae3d27d4eb4fn;
const PRIME3 = 0x165667b19e3779f9n;
const PRIME4 = 0x85ebca77c2b2ae63n;

export function createPageOps(memory: WasmMemory): PageOps {
  const module = new ModuleBuilder();
  const zero = module.func('zero', [I32], []).code;
  zero.get(0).i32(0).i32(PAGE_SIZE).memoryFill();
  const fill = module.func('fill', [I32, I32], []).code;
  fill.get(0).get(1).i32(PAGE_SIZE).memoryFill();
  const clear = module.func('clear', [I32, I32], []).code;
  clear.get(0).i32(0).get(1).memoryFill();
  const copy = module.func('copy', [I32, I32], []).code;
  copy.get(0).get(1).i32(PAGE_SIZE).memoryCopy();
  emitSameFilled(module.func('isSameFilled', [I32], [I32]).code);
  module.func('firstWord', [I32], [I64]).code.get(0).mem('i64Load');
  emitFillWords(module.func('fillWords', [I32, I64], []).code);
  emitChecksum(module.func('checksum', [I32, I32, I32], [I32]).code);
  return instantiate(module.toBytes(), { env: { memory } }) as unknown as PageOps;
}

/** Words in a turn of the loops over a page. */
const UNROLLED = 8;

/** WHY: the last word first, for most pages differ there already; then eight words a turn, whose differences are gathered. */
function emitSameFilled(c: Code): void {
  const [value, end] = [c.local(I64), c.local(I32)];
  c.get(0).mem('i64Load').tee(value);
  c.get(0)
    .mem('i64Load', PAGE_SIZE - 8)
    .op('i64Ne');
  c.if();
  c.i32(0).op('return').end();
  overPage(c, end, 8 * UNROLLED, () => {
    for (let k = 0; k < UNROLLED; k++) {
      c.get(0)
        .mem('i64Load', 8 * k)
        .get(value)
        .op('i64Xor');
      if (k > 0) c.op('i64Or');
    }
    c.i64(0).op('i64Ne');
    c.if();
    c.i32(0).op('return').end();
  });
  c.i32(1);
}

function emitFillWords(c: Code): void {
  overPage(c, c.local(I32), 8 * UNROLLED, () => {
    for (let k = 0; k < UNROLLED; k++)
      c.get(0)
        .get(1)
        .mem('i64Store', 8 * k);
  });
}

/** `body` for each `stepBytes` of the page at local 0, which goes on to the page's end; that is kept in local `end`. */
function overPage(c: Code, end: number, stepBytes: number, body: () => void): void {
  c.get(0).i32(PAGE_SIZE).op('i32Add').set(end);
  const loop = c.loop();
  body();
  c.get(0).i32(stepBytes).op('i32Add').tee(0).get(end).op('i32Ne').brIf(loop).end();
}

/** XXH64 for an input of exactly one page: four lanes of 8 bytes, merged; no tail. */
function emitChecksum(c: Code): void {
  const seed = c.local(I64);
  const lanes = [c.local(I64), c.local(I64), c.local(I64), c.local(I64)];
  const hash = c.local(I64);
  const end = c.local(I32);
  c.get(2).op('i64ExtendI32U').i64(32).op('i64Shl').get(1).op('i64ExtendI32U').op('i64Or').set(seed);
  const starts = [PRIME1 + PRIME2, PRIME2, 0n, -PRIME1];
  for (const [k, lane] of lanes.entries()) c.get(seed).i64(starts[k]!).op('i64Add').set(lane);
  overPage(c, end, 8 * lanes.length, () => {
    for (const [k, lane] of lanes.entries()) {
      c.get(lane)
        .get(0)
        .mem('i64Load', 8 * k);
      emitRound(c).set(lane);
    }
  });
  emitMerge(c, lanes, hash);
  emitAvalanche(c, hash);
}

/** accumulator, input -> rotl(accumulator + input * PRIME2, 31) * PRIME1 */
function emitRound(c: Code): Code {
  c.i64(PRIME2).op('i64Mul').op('i64Add').i64(31).op('i64Rotl');
  return c.i64(PRIME1).op('i64Mul');
}

function emitMerge(c: Code, lanes: number[], hash: number): void {
  const turns = [1, 7, 12, 18];
  c.i64(0).set(hash);
  for (const [k, lane] of lanes.entries()) c.get(hash).get(lane).i64(turns[k]!).op('i64Rotl').op('i64Add').set(hash);
  for (const lane of lanes) {
    c.get(hash).i64(0).get(lane);
    emitRound(c).op('i64Xor');
    c.i64(PRIME1).op('i64Mul').i64(PRIME4).op('i64Add').set(hash);
  }
}

function emitAvalanche(c: Code, hash: number): void {
  const shiftXor = (bits: number) => c.get(hash).get(hash).i64(bits).op('i64ShrU').op('i64Xor');
  c.get(hash).i64(PAGE_SIZE).op('i64Add').set(hash);
  shiftXor(33).i64(PRIME2).op('i64Mul').set(hash);
  shiftXor(29).i64(PRIME3).op('i64Mul').set(hash);
  shiftXor(32).op('i32WrapI64');
}
