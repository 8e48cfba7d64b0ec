/**
 * What a vCPU's thread and its owner on the mm thread tell each other with each exit: numbers in shared memory, written by the one
 * whose turn it is (VcpuState.turn), so plain accesses do.
 */

/** Fields, 8 bytes each. */
const EXIT = 0;
const INSTRET = 1;
const WAIT_HVA = 2;
const WAIT_FLAGS = 3;
const WAIT_GPA = 4;
const MMIO_GPA = 5;
const MMIO_LEN = 6;
const MMIO_IS_WRITE = 7;
const MMIO_VALUE = 8;
/** Not 0: MMIO_VALUE is the answer to a read. */
const MMIO_DONE = 9;
const MINOR = 10;
const RETRIES = 11;
const FIRST_USER_MS = 12;
/** The instruction that waited has pages held for it. */
const HOLDS = 13;
const NR_FIELDS = 14;
export const VCPU_MAIL_BYTES = NR_FIELDS * 8;

export class VcpuMail {
  private readonly f64: Float64Array;
  private readonly u64: BigUint64Array;

  constructor(memory: { buffer: SharedArrayBuffer }, address: number) {
    this.f64 = new Float64Array(memory.buffer, address, NR_FIELDS);
    this.u64 = new BigUint64Array(memory.buffer, address, NR_FIELDS);
  }

  get exit(): number {
    return this.f64[EXIT]!;
  }

  set exit(value: number) {
    this.f64[EXIT] = value;
  }

  get instret(): number {
    return this.f64[INSTRET]!;
  }

  set instret(value: number) {
    this.f64[INSTRET] = value;
  }

  get waitHva(): number {
    return this.f64[WAIT_HVA]!;
  }

  get waitFlags(): number {
    return this.f64[WAIT_FLAGS]!;
  }

  get waitGpa(): number {
    return this.f64[WAIT_GPA]!;
  }

  setWait(hva: number, flags: number, gpa: number): void {
    this.f64[WAIT_HVA] = hva;
    this.f64[WAIT_FLAGS] = flags;
    this.f64[WAIT_GPA] = gpa;
  }

  get mmioGpa(): number {
    return this.f64[MMIO_GPA]!;
  }

  get mmioLen(): number {
    return this.f64[MMIO_LEN]!;
  }

  get mmioIsWrite(): boolean {
    return this.f64[MMIO_IS_WRITE] !== 0;
  }

  get mmioValue(): bigint {
    return this.u64[MMIO_VALUE]!;
  }

  setMmio(gpa: number, lenBytes: number, isWrite: boolean, value: bigint): void {
    this.f64[MMIO_GPA] = gpa;
    this.f64[MMIO_LEN] = lenBytes;
    this.f64[MMIO_IS_WRITE] = isWrite ? 1 : 0;
    this.u64[MMIO_VALUE] = value;
  }

  answerMmio(value: bigint): void {
    this.u64[MMIO_VALUE] = value;
    this.f64[MMIO_DONE] = 1;
  }

  /** The answer to a read, once. */
  takeMmioAnswer(): bigint | undefined {
    if (this.f64[MMIO_DONE] === 0) return undefined;
    this.f64[MMIO_DONE] = 0;
    return this.u64[MMIO_VALUE]!;
  }

  /** External faults served, and those that had to be tried again. */
  get minor(): number {
    return this.f64[MINOR]!;
  }

  get retries(): number {
    return this.f64[RETRIES]!;
  }

  setCounts(minor: number, retries: number): void {
    this.f64[MINOR] = minor;
    this.f64[RETRIES] = retries;
  }

  /** By the environment's clock; 0: not yet. */
  get firstUserMs(): number {
    return this.f64[FIRST_USER_MS]!;
  }

  set firstUserMs(value: number) {
    this.f64[FIRST_USER_MS] = value;
  }

  get holds(): boolean {
    return this.f64[HOLDS] !== 0;
  }

  set holds(value: boolean) {
    this.f64[HOLDS] = value ? 1 : 0;
  }
}
