import { ATOMIC, MEM, OP, SIMD, VOID } from './opcodes.js';

/**
 * The body of one WebAssembly function, written instruction by instruction.
 *
 * Labels of `block` and `loop` are values of `Label`: a branch names its label and the relative depth is computed, so
 * that code can be moved between nesting levels without counting.
 */

export type OpName = keyof typeof OP;
export type MemName = keyof typeof MEM;
export type AtomicName = keyof typeof ATOMIC;
export type SimdName = keyof typeof SIMD;

/** A block or loop that can be branched to while it is open. */
export interface Label {
  readonly depth: number;
}

export class Code {
  readonly bytes: number[] = [];
  readonly locals: number[] = [];
  private readonly nrParams: number;
  private depth = 0;

  constructor(nrParams: number) {
    this.nrParams = nrParams;
  }

  /** A new local of a type; returns its index. */
  local(type: number): number {
    this.locals.push(type);
    return this.nrParams + this.locals.length - 1;
  }

  op(name: OpName): this {
    this.bytes.push(OP[name]);
    return this;
  }

  i32(value: number): this {
    this.bytes.push(0x41);
    pushSigned(this.bytes, BigInt(value | 0));
    return this;
  }

  i64(value: bigint | number): this {
    this.bytes.push(0x42);
    pushSigned(this.bytes, BigInt.asIntN(64, BigInt(value)));
    return this;
  }

  f64(value: number): this {
    const bytes = new Uint8Array(new Float64Array([value]).buffer);
    this.bytes.push(0x44, ...bytes);
    return this;
  }

  f32(value: number): this {
    const bytes = new Uint8Array(new Float32Array([value]).buffer);
    this.bytes.push(0x43, ...bytes);
    return this;
  }

  get(local: number): this {
    return this.withIndex(0x20, local);
  }

  set(local: number): this {
    return this.withIndex(0x21, local);
  }

  tee(local: number): this {
    return this.withIndex(0x22, local);
  }

  call(func: number): this {
    return this.withIndex(0x10, func);
  }

  private withIndex(opcode: number, index: number): this {
    this.bytes.push(opcode);
    pushUnsigned(this.bytes, index);
    return this;
  }

  /** A load or store at address + offset, unaligned allowed. */
  mem(name: MemName, offset = 0): this {
    this.bytes.push(MEM[name][0], 0);
    pushUnsigned(this.bytes, offset);
    return this;
  }

  /** An atomic access, naturally aligned or it traps. */
  atomic(name: AtomicName, offset = 0): this {
    this.bytes.push(0xfe, ATOMIC[name][0], ATOMIC[name][1]);
    pushUnsigned(this.bytes, offset);
    return this;
  }

  /** A load or store of 16 bytes at address + offset, unaligned allowed. */
  simd(name: SimdName, offset = 0): this {
    this.bytes.push(0xfd, SIMD[name][0], 0);
    pushUnsigned(this.bytes, offset);
    return this;
  }

  v128Xor(): this {
    this.bytes.push(0xfd, 0x51);
    return this;
  }

  /** Orders all accesses before it against all after it. */
  atomicFence(): this {
    this.bytes.push(0xfe, 0x03, 0x00);
    return this;
  }

  memoryFill(): this {
    this.bytes.push(0xfc, 11, 0);
    return this;
  }

  memoryCopy(): this {
    this.bytes.push(0xfc, 10, 0, 0);
    return this;
  }

  block(type = VOID): Label {
    return this.open(0x02, type);
  }

  loop(type = VOID): Label {
    return this.open(0x03, type);
  }

  if(type = VOID): Label {
    return this.open(0x04, type);
  }

  private open(opcode: number, type: number): Label {
    this.bytes.push(opcode, type);
    return { depth: this.depth++ };
  }

  else(): this {
    this.bytes.push(0x05);
    return this;
  }

  end(): this {
    this.bytes.push(0x0b);
    this.depth--;
    return this;
  }

  br(label: Label): this {
    return this.withIndex(0x0c, this.relative(label));
  }

  brIf(label: Label): this {
    return this.withIndex(0x0d, this.relative(label));
  }

  brTable(labels: readonly Label[], fallback: Label): this {
    this.bytes.push(0x0e);
    pushUnsigned(this.bytes, labels.length);
    for (const label of labels) pushUnsigned(this.bytes, this.relative(label));
    pushUnsigned(this.bytes, this.relative(fallback));
    return this;
  }

  private relative(label: Label): number {
    return this.depth - 1 - label.depth;
  }
}

export function pushUnsigned(bytes: number[], value: number): void {
  while (value >= 0x80) {
    bytes.push((value & 0x7f) | 0x80);
    value >>>= 7;
  }
  bytes.push(value);
}

function pushSigned(bytes: number[], value: bigint): void {
  for (;;) {
    const byte = Number(value & 0x7fn);
    value >>= 7n;
    if ((value === 0n && (byte & 0x40) === 0) || (value === -1n && (byte & 0x40) !== 0)) {
      bytes.push(byte);
      return;
    }
    bytes.push(byte | 0x80);
  }
}
