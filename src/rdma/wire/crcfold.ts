import { type Code, I32, type ModuleBuilder } from '../../base/index.js';

/**
 * Folding for CRC32C: of many bytes a few are made that have the same CRC, by exclusive or alone, 16 bytes at a time.
 *
 * A multiple of the polynomial with few terms, x^a + x^b + x^c + 1, says that a bit may be struck out where it is added to those that come a - b, a - c and a bits later.
 * Its eighth power, x^8a + x^8b + x^8c + 1, is a multiple too, and says the same of bytes. So, with what was struck out kept in `w`,
 *
 *     w[i] = m[i] ^ w[i - (a - b)] ^ w[i - (a - c)] ^ w[i - a]        for all but the last `a` bytes, which then stand for everything
 *
 * More terms reach less far, and leave less: FAR first, NEAR for what that leaves; what is left then is the tables' (crc32c.ts).
 *
 * The idea of using sparse multiples, instead of multiplying without carry: Russell, Chorba: A novel CRC32 implementation, 2024. No multiple of fewer than four terms exists, for the
 * polynomial is even; none of four is shorter than 5275 bits, and none of six than 209 (Koopman's bounds for it: Hamming distance 6 up to 5243 bits, 8 up to 177).
 */

/**
 * How many bytes later, in ascending order: the last is `a`. WHY these: what was stored some instant ago is slow to load where it does not lie as it was stored, and the least distance of
 * FAR leaves the processor time for that; those of NEAR are multiples of 16.
 */
export const FAR = [1747, 2830, 5321] as const;
export const NEAR = [64, 128, 336, 976, 1072, 1248, 1264] as const;

const VECTOR = 16;
/** Vectors of one turn of the loop; no distance may be shorter. */
const UNROLLED = 4;
const TURN = UNROLLED * VECTOR;

/** Bytes that a fold of up to `lenBytes` by `distances` needs: `w`, with zeros before and behind it. */
export function foldScratchBytes(distances: readonly number[], lenBytes: number): number {
  return zerosBytes(distances) + lenBytes + 2 * TURN;
}

/** What it leaves at most. */
export function foldLeavesBytes(distances: readonly number[]): number {
  return zerosBytes(distances) + TURN;
}

function zerosBytes(distances: readonly number[]): number {
  return Math.ceil(distances.at(-1)! / VECTOR) * VECTOR;
}

/**
 * A function (crc, source, out, lenBytes) -> bytes left: folds `lenBytes`, a multiple of 16 of at least `foldLeavesBytes`, at `source` behind what gave `crc`; what is left, to be taken
 * up with a CRC of 0, is at `out`, which may be `source`. `scratch`, aligned to 16, is `foldScratchBytes` of zeros at first. Returns its index.
 */
export function addFold(module: ModuleBuilder, distances: readonly number[], scratch: number): number {
  const a = distances.at(-1)!;
  const w = scratch + zerosBytes(distances);
  const step = addStep(module, distances);
  const { index, code } = module.func(undefined, [I32, I32, I32, I32], [I32]);
  const [crc, source, out, lenBytes] = [0, 1, 2, 3];
  const folded = code.local(I32);
  code.get(lenBytes).i32(a).op('i32Sub').i32(-TURN).op('i32And').set(folded);
  // `a` bytes before the first: so it is added to the first four, and to nothing else.
  code
    .i32(w - a)
    .get(crc)
    .mem('i32Store');
  code
    .get(source)
    .i32(w - a)
    .i32(w)
    .get(folded)
    .call(step);
  // Beyond what is struck out nothing is added.
  code
    .i32(w)
    .get(folded)
    .op('i32Add')
    .i32(0)
    .i32(a + TURN)
    .memoryFill();
  code.get(source).get(folded).op('i32Add');
  code
    .i32(w - a)
    .get(folded)
    .op('i32Add');
  code.get(out).get(lenBytes).get(folded).op('i32Sub').call(step);
  code.get(lenBytes).get(folded).op('i32Sub');
  return index;
}

/** A function (source, behind, out, lenBytes): each vector of `source` and what is added to it, to `out`. `behind` is the place in `w` that is `a` bytes before. */
function addStep(module: ModuleBuilder, distances: readonly number[]): number {
  const { index, code } = module.func(undefined, [I32, I32, I32, I32], []);
  const [source, behind, out, left] = [0, 1, 2, 3];
  for (const turn of [TURN, VECTOR]) {
    const done = code.block();
    const loop = code.loop();
    code.get(left).i32(turn).op('i32LtU').brIf(done);
    for (let at = 0; at < turn; at += VECTOR) emitVector(code, distances, at, source, behind, out);
    for (const pointer of [source, behind, out]) code.get(pointer).i32(turn).op('i32Add').set(pointer);
    code.get(left).i32(turn).op('i32Sub').set(left).br(loop);
    code.end().end();
  }
  return index;
}

function emitVector(
  code: Code,
  distances: readonly number[],
  at: number,
  source: number,
  behind: number,
  out: number,
): void {
  const a = distances.at(-1)!;
  code.get(out).get(source).simd('v128Load', at);
  for (const d of distances)
    code
      .get(behind)
      .simd('v128Load', a - d + at)
      .v128Xor();
  code.simd('v128Store', at);
}
