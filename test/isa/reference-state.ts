/**
 * The state of the reference hart (reference.ts), and the few things that all of its instructions are made of.
 */

export interface Trap {
  readonly cause: number;
  readonly tval: bigint;
}

/** Thrown inside of a step. */
export class TrapError extends Error {
  readonly trap: Trap;

  constructor(trap: Trap) {
    super(`trap ${trap.cause}`);
    this.trap = trap;
  }
}

export const u64 = (v: bigint): bigint => BigInt.asUintN(64, v);
export const s64 = (v: bigint): bigint => BigInt.asIntN(64, v);
export const s32 = (v: bigint): bigint => BigInt.asIntN(32, v);
export const u32 = (v: bigint): bigint => BigInt.asUintN(32, v);

/** The bits hi..lo of a word. */
export const field = (word: number, hi: number, lo: number): number => (word >>> lo) & (2 ** (hi - lo + 1) - 1);

export class ReferenceState {
  readonly x = new BigUint64Array(32);
  readonly f = new BigUint64Array(32);
  pc = 0n;
  fflags = 0;
  frm = 0;
  /** sstatus.FS is not Off. */
  fs = true;
  readonly csrs = new Map<number, bigint>();
  readonly memory: Uint8Array;
  readonly memoryBase: bigint;
  /** pc after the present instruction. */
  protected next = 0n;

  constructor(memoryBase: bigint, lenBytes: number) {
    this.memoryBase = memoryBase;
    this.memory = new Uint8Array(lenBytes);
  }

  trap(cause: number, tval: bigint): never {
    throw new TrapError({ cause, tval: u64(tval) });
  }

  illegal(word: number): never {
    return this.trap(2, BigInt(word >>> 0));
  }

  set(rd: number, value: bigint): void {
    if (rd !== 0) this.x[rd] = u64(value);
  }

  /** A signed register. */
  signed(n: number): bigint {
    return s64(this.x[n]!);
  }

  link(rd: number): void {
    this.set(rd, this.next);
  }

  jump(target: bigint): void {
    this.next = u64(target);
  }

  needFs(word: number): void {
    if (!this.fs) this.illegal(word);
  }

  // Memory.

  private offset(address: bigint, lenBytes: number): number {
    const offset = u64(address) - this.memoryBase;
    if (offset < 0n || offset + BigInt(lenBytes) > BigInt(this.memory.length))
      throw new RangeError(`reference: 0x${u64(address).toString(16)} is outside of the memory that it has`);
    return Number(offset);
  }

  load(address: bigint, lenBytes: number, signed: boolean): bigint {
    const at = this.offset(address, lenBytes);
    let value = 0n;
    for (let i = 0; i < lenBytes; i++) value |= BigInt(this.memory[at + i]!) << BigInt(8 * i);
    return signed ? BigInt.asIntN(8 * lenBytes, value) : value;
  }

  loadFloat(rd: number, address: bigint, lenBytes: number): void {
    const value = this.load(address, lenBytes, false);
    this.f[rd] = lenBytes === 4 ? value | (0xffffffffn << 32n) : value;
  }

  store(address: bigint, lenBytes: number, value: bigint): void {
    const at = this.offset(address, lenBytes);
    for (let i = 0; i < lenBytes; i++) this.memory[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
  }
}
