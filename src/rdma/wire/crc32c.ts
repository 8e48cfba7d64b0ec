import { type Code, createMemory, I32, instantiate, ModuleBuilder, type WasmMemory } from '../../base/index.js';
import { addFold, FAR, foldLeavesBytes, foldScratchBytes, NEAR } from './crcfold.js';

/**
 * CRC32C (Castagnoli), as MPA has it at the end of each FPDU.
 *
 * In WebAssembly: long runs are folded (crcfold.ts), and what that leaves goes through sixteen tables, 16 bytes a step. Bytes that lie in the memory of the module, which may be a host's,
 * are read where they are; others are copied in by pieces that stay in the first-level cache.
 *
 * Source: RFC 5044 section 4.4, which refers to RFC 3720 section 12.1 and appendix B.4.
 */

export interface Crc32c {
  /** The CRC of [start, end) of `bytes` behind what gave `crc`; 0 begins. A uint32. */
  update(crc: number, bytes: Uint8Array, start: number, end: number): number;
}

/** The reflected polynomial 0x1EDC6F41. */
const POLYNOMIAL = 0x82f63b78;
const NR_TABLES = 16;
const TABLE_BYTES = 1024;
const STAGING_BYTES = 8192;
/** In one call: more than the longest FPDU has. */
const PIECE_BYTES = 66048;
/** WHY: about where folding begins to gain over the tables, and folding twice over folding once. */
const NEAR_FROM = 2560;
const FAR_FROM = 12288;

// What it needs in a memory, from the tables on.
const FAR_AT = NR_TABLES * TABLE_BYTES;
const NEAR_AT = FAR_AT + foldScratchBytes(FAR, PIECE_BYTES);
const LEFT_AT = NEAR_AT + foldScratchBytes(NEAR, FAR_FROM);
const STAGING_AT = LEFT_AT + foldLeavesBytes(FAR);

/** What it needs in a memory that is given, aligned to 16 bytes. */
export const CRC32C_SCRATCH_BYTES = STAGING_AT + STAGING_BYTES;

/**
 * One for any number of connections of a thread.
 * @param memory where bytes are read in place; by default a small one of its own
 * @param scratch address of CRC32C_SCRATCH_BYTES in it that are nobody else's, zeros at first
 */
export function createCrc32c(memory: WasmMemory = createMemory(CRC32C_SCRATCH_BYTES), scratch = 0): Crc32c {
  writeTables(new Uint32Array(memory.buffer, scratch, (NR_TABLES * TABLE_BYTES) / 4));
  const { crc32c } = instantiate(moduleBytes(scratch), { env: { memory } }) as { crc32c: CrcFunction };
  return new WasmCrc32c(memory, scratch + STAGING_AT, crc32c);
}

type CrcFunction = (crc: number, address: number, lenBytes: number) => number;

class WasmCrc32c implements Crc32c {
  private readonly buffer: SharedArrayBuffer;
  private readonly u8: Uint8Array;
  private readonly staging: number;
  private readonly crc32c: CrcFunction;

  constructor(memory: WasmMemory, staging: number, crc32c: CrcFunction) {
    this.buffer = memory.buffer;
    this.u8 = new Uint8Array(memory.buffer);
    this.staging = staging;
    this.crc32c = crc32c;
  }

  update(crc: number, bytes: Uint8Array, start: number, end: number): number {
    const inPlace = bytes.buffer === this.buffer;
    const step = inPlace ? PIECE_BYTES : STAGING_BYTES;
    for (let at = start; at < end; at += step) {
      const lenBytes = Math.min(step, end - at);
      if (!inPlace) this.u8.set(bytes.subarray(at, at + lenBytes), this.staging);
      crc = this.crc32c(crc, inPlace ? bytes.byteOffset + at : this.staging, lenBytes);
    }
    return crc >>> 0;
  }
}

/** Table k tells what a byte does that k zero bytes follow. */
function writeTables(tables: Uint32Array): void {
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (POLYNOMIAL & -(crc & 1));
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i++) tables[i] = (tables[i - 256] >>> 8) ^ tables[tables[i - 256] & 255];
}

function moduleBytes(scratch: number): Uint8Array {
  const module = new ModuleBuilder();
  const far = addFold(module, FAR, scratch + FAR_AT);
  const near = addFold(module, NEAR, scratch + NEAR_AT);
  const tables = addTables(module, scratch);
  const { code } = module.func('crc32c', [I32, I32, I32], [I32]);
  const [crc, address, lenBytes] = [0, 1, 2];
  const left = code.local(I32);
  const leftAt = scratch + LEFT_AT;
  code.get(crc).i32(-1).op('i32Xor').set(crc);
  code.get(lenBytes).i32(NEAR_FROM).op('i32GeU').if();
  code.get(lenBytes).i32(FAR_FROM).op('i32GeU').if();
  code.get(crc).get(address).i32(leftAt).get(lenBytes).i32(-16).op('i32And').call(far).set(left);
  code.i32(0).i32(leftAt).i32(leftAt).get(left).call(near).set(left);
  code.else();
  code.get(crc).get(address).i32(leftAt).get(lenBytes).i32(-16).op('i32And').call(near).set(left);
  code.end();
  code.i32(0).i32(leftAt).get(left).call(tables).set(crc);
  code.get(address).get(lenBytes).i32(-16).op('i32And').op('i32Add').set(address);
  code.get(lenBytes).i32(15).op('i32And').set(lenBytes);
  code.end();
  code.get(crc).get(address).get(lenBytes).call(tables).i32(-1).op('i32Xor');
  return module.toBytes();
}

/** A function (crc, address, lenBytes) -> crc, without the complements; returns its index. */
function addTables(module: ModuleBuilder, tables: number): number {
  const { index, code } = module.func(undefined, [I32, I32, I32], [I32]);
  const [crc, address, lenBytes] = [0, 1, 2];
  whileAtLeast(16, () => emitSixteen(code, tables, crc, address));
  whileAtLeast(1, () => emitOne(code, tables, crc, address));
  code.get(crc);
  return index;

  function whileAtLeast(step: number, emit: () => void): void {
    const done = code.block();
    const loop = code.loop();
    code.get(lenBytes).i32(step).op('i32LtU').brIf(done);
    emit();
    code.get(address).i32(step).op('i32Add').set(address).get(lenBytes).i32(step).op('i32Sub').set(lenBytes).br(loop);
    code.end().end();
  }
}

/** crc = the sum of what 16 bytes do, the first four of them with the CRC so far added. */
function emitSixteen(code: Code, tables: number, crc: number, address: number): void {
  const words = [0, 4, 8, 12].map((offset) => {
    const word = code.local(I32);
    code.get(address).mem('i32Load', offset);
    if (offset === 0) code.get(crc).op('i32Xor');
    code.set(word);
    return word;
  });
  // WHY the last bytes first: the next step waits for the sum, and only the first four bytes had to wait for the one before.
  for (let byte = 15; byte >= 0; byte--) {
    emitEntry(code, words[byte >> 2], (byte & 3) * 8, tables + (15 - byte) * TABLE_BYTES);
    if (byte < 15) code.op('i32Xor');
  }
  code.set(crc);
}

/** Pushes the entry of a table for the byte of `word` at bit `shift`. */
function emitEntry(code: Code, word: number, shift: number, table: number): void {
  code.get(word);
  if (shift === 0) code.i32(2).op('i32Shl');
  else code.i32(shift - 2).op('i32ShrU');
  code.i32(0x3fc).op('i32And').mem('i32Load', table);
}

function emitOne(code: Code, tables: number, crc: number, address: number): void {
  code.get(address).mem('i32Load8U').get(crc).op('i32Xor').i32(255).op('i32And').i32(2).op('i32Shl');
  code.mem('i32Load', tables).get(crc).i32(8).op('i32ShrU').op('i32Xor').set(crc);
}
