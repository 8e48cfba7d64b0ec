import { compressed } from './reference-c.js';
import { fpFused, fpOperation } from './reference-fp.js';
import { field, ReferenceState, s32, s64, type Trap, TrapError, u32, u64 } from './reference-state.js';

/**
 * A hart in S-mode, instruction by instruction, written from the manual in big integers: slow, plain, and independent of
 * the table it checks, decoding included. Registers and memory are its own; memory is one window, aligned to pages.
 *
 * Use: set the state, `step(word)`, look at the state; a trap is answered and changes nothing else.
 */

const CSR_FFLAGS = 1;
const CSR_FRM = 2;
const CSR_FCSR = 3;
/** CSRs that are storage, and the bits that can be set. */
const STORED = new Map<number, bigint>([
  [0x140, u64(-1n)],
  [0x141, u64(-2n)],
  [0x142, u64(-1n)],
  [0x143, u64(-1n)],
]);
/** cycle, time, instret. */
const COUNTERS = [0xc00, 0xc01, 0xc02];

export class Reference extends ReferenceState {
  private reserved: { address: bigint; value: bigint } | undefined;

  /** Carries out `word` at pc. */
  step(word: number): Trap | undefined {
    const short = (word & 3) !== 3;
    this.next = u64(this.pc + (short ? 2n : 4n));
    try {
      if (short) compressed(this, word & 0xffff);
      else this.full(word);
    } catch (error) {
      if (error instanceof TrapError) return error.trap;
      throw error;
    }
    this.pc = this.next;
    this.x[0] = 0n;
    return undefined;
  }

  private full(w: number): void {
    const rd = field(w, 11, 7);
    const f3 = field(w, 14, 12);
    const rs1 = field(w, 19, 15);
    const rs2 = field(w, 24, 20);
    const f7 = field(w, 31, 25);
    const immI = BigInt(w >> 20);
    const immS = BigInt(((w >> 25) << 5) | rd);
    const [a, b] = [this.x[rs1]!, this.x[rs2]!];
    switch (w & 0x7f) {
      case 0x37:
        return this.set(rd, BigInt(w & ~0xfff));
      case 0x17:
        return this.set(rd, this.pc + BigInt(w & ~0xfff));
      case 0x6f: {
        const imm = (field(w, 30, 21) << 1) | (field(w, 20, 20) << 11) | (field(w, 19, 12) << 12) | ((w >> 31) << 20);
        this.link(rd);
        return this.jump(this.pc + BigInt(imm));
      }
      case 0x67:
        if (f3 !== 0) this.illegal(w);
        this.jump((a + immI) & ~1n);
        this.set(rd, this.pc + 4n);
        return;
      case 0x63: {
        const imm = (field(w, 11, 8) << 1) | (field(w, 30, 25) << 5) | (field(w, 7, 7) << 11) | ((w >> 31) << 12);
        if (this.condition(w, f3, a, b)) this.jump(this.pc + BigInt(imm));
        return;
      }
      case 0x03:
        if (f3 === 7) this.illegal(w);
        return this.set(rd, this.load(a + immI, 2 ** (f3 & 3), f3 < 4));
      case 0x23:
        if (f3 > 3) this.illegal(w);
        return this.store(a + immS, 2 ** f3, b);
      case 0x07:
        if (f3 !== 2 && f3 !== 3) this.illegal(w);
        this.needFs(w);
        return this.loadFloat(rd, a + immI, f3 === 2 ? 4 : 8);
      case 0x27:
        if (f3 !== 2 && f3 !== 3) this.illegal(w);
        this.needFs(w);
        return this.store(a + immS, f3 === 2 ? 4 : 8, this.f[rs2]!);
      case 0x13:
        return this.set(rd, this.opImm(w, f3, a, immI));
      case 0x1b:
        return this.set(rd, s32(this.opImm32(w, f3, a, immI)));
      case 0x33:
        return this.set(rd, f7 === 1 ? mulDiv(f3, a, b, 64) : this.op(w, f3, f7, a, b));
      case 0x3b:
        return this.set(rd, s32(this.op32(w, f3, f7, a, b)));
      case 0x2f:
        return this.atomic(w, rd, f3, a, b);
      case 0x0f:
        if (f3 > 1) this.illegal(w);
        return;
      case 0x73:
        return this.system(w, rd, f3, rs1);
      case 0x53:
        return fpOperation(this, w);
      case 0x43:
      case 0x47:
      case 0x4b:
      case 0x4f:
        return fpFused(this, w);
      default:
        this.illegal(w);
    }
  }

  private condition(w: number, f3: number, a: bigint, b: bigint): boolean {
    const results = [a === b, a !== b, undefined, undefined, s64(a) < s64(b), s64(a) >= s64(b), a < b, a >= b];
    return results[f3] ?? this.illegal(w);
  }

  private opImm(w: number, f3: number, a: bigint, imm: bigint): bigint {
    const top = field(w, 31, 26);
    const shift = BigInt(field(w, 25, 20));
    switch (f3) {
      case 0:
        return a + imm;
      case 1:
        return top === 0 ? a << shift : this.illegal(w);
      case 2:
        return s64(a) < imm ? 1n : 0n;
      case 3:
        return a < u64(imm) ? 1n : 0n;
      case 4:
        return a ^ u64(imm);
      case 5:
        return top === 0 ? a >> shift : top === 16 ? s64(a) >> shift : this.illegal(w);
      case 6:
        return a | u64(imm);
      default:
        return a & u64(imm);
    }
  }

  private opImm32(w: number, f3: number, a: bigint, imm: bigint): bigint {
    const f7 = field(w, 31, 25);
    const shift = BigInt(field(w, 24, 20));
    if (f3 === 0) return a + imm;
    if (f3 === 1 && f7 === 0) return a << shift;
    if (f3 === 5 && f7 === 0) return u32(a) >> shift;
    if (f3 === 5 && f7 === 0x20) return s32(a) >> shift;
    return this.illegal(w);
  }

  private op(w: number, f3: number, f7: number, a: bigint, b: bigint): bigint {
    if (f7 === 0x20) return f3 === 0 ? a - b : f3 === 5 ? s64(a) >> (b & 63n) : this.illegal(w);
    if (f7 !== 0) this.illegal(w);
    const less = (x: bigint, y: bigint) => (x < y ? 1n : 0n);
    const results = [a + b, a << (b & 63n), less(s64(a), s64(b)), less(a, b), a ^ b, a >> (b & 63n), a | b, a & b];
    return results[f3]!;
  }

  private op32(w: number, f3: number, f7: number, a: bigint, b: bigint): bigint {
    const shift = b & 31n;
    if (f7 === 1 && (f3 === 0 || f3 >= 4)) return mulDiv(f3, u32(a), u32(b), 32);
    if (f7 === 0x20 && f3 === 0) return a - b;
    if (f7 === 0x20 && f3 === 5) return s32(a) >> shift;
    if (f7 === 0 && f3 === 0) return a + b;
    if (f7 === 0 && f3 === 1) return a << shift;
    if (f7 === 0 && f3 === 5) return u32(a) >> shift;
    return this.illegal(w);
  }

  private atomic(w: number, rd: number, f3: number, address: bigint, operand: bigint): void {
    if (f3 !== 2 && f3 !== 3) this.illegal(w);
    const lenBytes = f3 === 2 ? 4 : 8;
    const f5 = field(w, 31, 27);
    if (f5 === 2 && field(w, 24, 20) !== 0) this.illegal(w);
    if (![0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28].includes(f5)) this.illegal(w);
    if (address % BigInt(lenBytes) !== 0n) this.trap(f5 === 2 ? 4 : 6, address);
    if (f5 === 3) return this.storeConditional(rd, address, lenBytes, operand);
    const old = this.load(address, lenBytes, true);
    if (f5 === 2) this.reserved = { address, value: old };
    else this.store(address, lenBytes, combine(f5, old, BigInt.asIntN(8 * lenBytes, operand), 8 * lenBytes));
    this.set(rd, old);
  }

  /** A store by anybody to the reserved bytes is seen by their value. */
  private storeConditional(rd: number, address: bigint, lenBytes: number, operand: bigint): void {
    const { reserved } = this;
    this.reserved = undefined;
    const held = reserved?.address === address && this.load(address, lenBytes, true) === reserved.value;
    if (held) this.store(address, lenBytes, operand);
    this.set(rd, held ? 0n : 1n);
  }

  // CSRs, and what changes modes.

  private system(w: number, rd: number, f3: number, rs1: number): void {
    if (f3 !== 0) return f3 === 4 ? this.illegal(w) : this.csr(w, rd, f3, rs1);
    if (w === 0x00100073) this.trap(3, this.pc);
    if (w === 0x10200073) return this.jump(this.csrs.get(0x141) ?? 0n);
    // ecall and wfi go to whoever runs the hart; fences order nothing here.
    if (w === 0x00000073 || w === 0x10500073) return;
    if (field(w, 31, 25) === 9 && rd === 0) return;
    this.illegal(w);
  }

  private csr(w: number, rd: number, f3: number, rs1: number): void {
    const number = w >>> 20;
    const operand = f3 >= 4 ? BigInt(rs1) : this.x[rs1]!;
    const write = (f3 & 3) === 1 || rs1 !== 0;
    if (write && number >>> 10 === 3) this.illegal(w);
    const old = this.readCsr(w, number);
    const kind = f3 & 3;
    if (write) this.writeCsr(number, kind === 1 ? operand : kind === 2 ? old | operand : old & ~operand);
    this.set(rd, old);
  }

  private readCsr(w: number, number: number): bigint {
    if (number >= CSR_FFLAGS && number <= CSR_FCSR) {
      this.needFs(w);
      return BigInt([this.fflags, this.frm, this.fflags | (this.frm << 5)][number - 1]!);
    }
    if (!STORED.has(number) && !COUNTERS.includes(number)) this.illegal(w);
    return this.csrs.get(number) ?? 0n;
  }

  private writeCsr(number: number, value: bigint): void {
    const low = Number(value & 0xffn);
    if (number === CSR_FFLAGS) this.fflags = low & 31;
    else if (number === CSR_FRM) this.frm = low & 7;
    else if (number === CSR_FCSR) [this.fflags, this.frm] = [low & 31, low >> 5];
    else this.csrs.set(number, u64(value) & STORED.get(number)!);
  }
}

/** M, on operands of `width` bits as unsigned numbers. Manual, table 11: what division by zero and overflow give. */
function mulDiv(f3: number, a: bigint, b: bigint, width: number): bigint {
  const signedOf = (v: bigint) => BigInt.asIntN(width, v);
  const [sa, sb] = [signedOf(a), signedOf(b)];
  switch (f3) {
    case 0:
      return a * b;
    case 1:
      return (sa * sb) >> 64n;
    case 2:
      return (sa * b) >> 64n;
    case 3:
      return (a * b) >> 64n;
    case 4:
      return sb === 0n ? -1n : sa / sb;
    case 5:
      return b === 0n ? -1n : a / b;
    case 6:
      return sb === 0n ? sa : sa % sb;
    default:
      return b === 0n ? a : a % b;
  }
}

function combine(f5: number, old: bigint, operand: bigint, width: number): bigint {
  const unsigned = (v: bigint) => BigInt.asUintN(width, v);
  const results = new Map<number, bigint>([
    [0, old + operand],
    [1, operand],
    [4, old ^ operand],
    [8, old | operand],
    [12, old & operand],
    [16, old < operand ? old : operand],
    [20, old > operand ? old : operand],
    [24, unsigned(old) < unsigned(operand) ? old : operand],
    [28, unsigned(old) > unsigned(operand) ? old : operand],
  ]);
  return results.get(f5)!;
}
