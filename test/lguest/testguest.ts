import { afterEach } from 'vitest';
import {
  checkLguest,
  LGUEST_DATA,
  LGUEST_FRAME,
  LGUEST_REG_PC,
  LGUEST_TRAP_ENTRY,
  type Lguest,
  LguestDevice,
  type LguestInit,
  type LguestOptions,
  type LguestPending,
  LHCALL_LGUEST_INIT,
  LHCALL_LOAD_IDT_ENTRY,
  LHCALL_NOTIFY,
  LHCALL_RING_FREE,
  LHCALL_RING_FULL,
  LHCALL_RING_SIZE,
  LHCALL_SET_STACK,
  LHCALL_SRET,
} from '../../src/lguest/index.js';
import {
  checkHost,
  type Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  type Mm,
  PROT_READ,
  PROT_WRITE,
  type SwapDevice,
} from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { addi, ECALL, ld, sd } from '../isa/assemble.js';
import { smallHost } from '../smallhost.js';

/**
 * A guest without a kernel: routines of a few instructions in its first page, which the test calls one at a time and which end with LHCALL_NOTIFY of DONE; its lguest_data, its
 * stack and its page tables are written by the test. Everything runs as the launcher's real guests do.
 */

export const PAGE = 4096;
export const [ZERO, SP, A0, A1, A2, A3, A4] = [0, 2, 10, 11, 12, 13, 14];
export const DONE = 0x7f;
/** Pages of guest memory. */
export const DATA_PAGE = 1;
export const STACK_PAGE = 2;
export const ROOT_PAGE = 4;
const FIRST_TABLE_PAGE = 5;
export const FIRST_DATA_PAGE = 32;
/** Where the kernel's half begins; the kernel sees all memory from there on. */
export const KERNEL = 0xffffffc000000000n;
/** Guest virtual address of a process's code, in the test's address spaces. */
export const USER = 0x400000n;

export const PTE = { V: 1, R: 2, W: 4, X: 8, U: 16, A: 64, D: 128 } as const;
export const KERNEL_RWX = PTE.V | PTE.R | PTE.W | PTE.X;
export const USER_RWX = KERNEL_RWX | PTE.U;

/** Offsets of the routines in page 0. */
const LOAD = 0;
const STORE = 0x40;
const HCALL = 0x80;
const FREE_CODE = 0x100;

/** li a0, LHCALL_NOTIFY; li a1, addr; ecall */
export const notify = (addr: number): number[] => [addi(A0, ZERO, LHCALL_NOTIFY), addi(A1, ZERO, addr), ECALL];
/** li a0, LHCALL_SRET; ecall */
export const RETURN = [addi(A0, ZERO, LHCALL_SRET), ECALL];

export interface TestGuestOptions {
  readonly frames?: number;
  readonly ramPages?: number;
  readonly swap?: SwapDevice;
  readonly host?: Host;
  readonly device?: LguestDevice;
  readonly init?: Partial<LguestInit>;
  readonly rlimitMemlock?: number;
  readonly options?: LguestOptions;
}

export class TestGuest {
  readonly host: Host;
  readonly device: LguestDevice;
  readonly mm: Mm;
  readonly lg: Lguest;
  readonly base: number;
  readonly ramPages: number;
  /** Guest-physical address of the root that `map` writes; its other tables come from FIRST_TABLE_PAGE on. */
  root = ROOT_PAGE * PAGE;
  /** Virtual address of guest-physical 0 for the kernel: 0 without paging. */
  private kernel = 0n;
  private nextTable = FIRST_TABLE_PAGE;
  private nextCode = FREE_CODE;
  private made = false;

  private constructor(options: TestGuestOptions) {
    this.ramPages = options.ramPages ?? 64;
    this.host = options.host ?? newHost(options.frames ?? 256, options.swap);
    this.device = options.device ?? newDevice(this.host, options.options);
    this.mm = this.host.createMm({ rlimitMemlock: options.rlimitMemlock ?? 65536 });
    this.base = this.mm.mmap(0, this.ramPages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    this.lg = this.device.open(this.mm);
  }

  /** Initialized; LHCALL_LGUEST_INIT is the test's own. */
  static async bare(options: TestGuestOptions = {}): Promise<TestGuest> {
    const t = new TestGuest(options);
    await t.write(LOAD, words(ld(A2, 0, A0), ...notify(DONE)));
    await t.write(STORE, words(sd(A1, 0, A0), ...notify(DONE)));
    await t.write(HCALL, words(ECALL, ...notify(DONE)));
    await t.lg.initialize({ base: t.base, pfnLimit: t.ramPages, start: 0, ...options.init });
    t.made = true;
    return t;
  }

  /** After LHCALL_LGUEST_INIT, without paging. */
  static async create(options: TestGuestOptions = {}): Promise<TestGuest> {
    const t = await TestGuest.bare(options);
    await t.write64(t.data('kernelAddress'), KERNEL);
    await t.write(t.data('hcallStatus'), new Uint8Array(LHCALL_RING_SIZE).fill(LHCALL_RING_FREE));
    await t.hcall(LHCALL_LGUEST_INIT, BigInt(t.data('irqEnabled')));
    return t;
  }

  /** With the kernel's half mapped, page by page: the kernel sees guest memory from KERNEL on. */
  static async paged(options: TestGuestOptions = {}): Promise<TestGuest> {
    const t = await TestGuest.create(options);
    for (let page = 0; page < t.ramPages; page += 512) {
      const nr = Math.min(512, t.ramPages - page);
      const ptes = BigUint64Array.from({ length: nr }, (_, i) => pte(page + i, KERNEL_RWX));
      await t.write(await t.entry(KERNEL + BigInt(page * PAGE)), new Uint8Array(ptes.buffer));
    }
    // The page that it is in is shown one to one too, for the way over.
    await t.map(0n, 0, KERNEL_RWX);
    await t.hcall(4, BigInt(t.root));
    t.kernel = KERNEL;
    return t;
  }

  // Guest memory, as the launcher has it.

  data(field: keyof typeof LGUEST_DATA): number {
    return DATA_PAGE * PAGE + LGUEST_DATA[field];
  }

  async write(gpa: number, bytes: Uint8Array): Promise<void> {
    if (this.made) await this.lg.memory.write(gpa, bytes);
    else await this.mm.write(this.base + gpa, bytes);
  }

  async read(gpa: number, lenBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lenBytes);
    await this.mm.read(this.base + gpa, bytes);
    return bytes;
  }

  async write64(gpa: number, value: bigint): Promise<void> {
    await this.write(gpa, new Uint8Array(new BigUint64Array([BigInt.asUintN(64, value)]).buffer));
  }

  async read64(gpa: number): Promise<bigint> {
    return new BigUint64Array((await this.read(gpa, 8)).buffer)[0]!;
  }

  /** Writes its number into each page of data. */
  async number(): Promise<void> {
    for (let page = FIRST_DATA_PAGE; page < this.ramPages; page++) await this.write64(page * PAGE, BigInt(page));
  }

  async write32(gpa: number, value: number): Promise<void> {
    await this.write(gpa, new Uint8Array(new Uint32Array([value]).buffer));
  }

  async read32(gpa: number): Promise<number> {
    return new Uint32Array((await this.read(gpa, 4)).buffer)[0]!;
  }

  /** Puts code into page 0; its guest-physical address. */
  async code(...instructions: number[]): Promise<number> {
    const gpa = this.nextCode;
    this.nextCode += instructions.length * 4 + (instructions.length % 2) * 4;
    await this.lg.memory.write(gpa, words(...instructions));
    return gpa;
  }

  // Its page tables.

  /** Maps one page below `root`, and tells nobody. Returns where its entry is. */
  async map(va: bigint, page: number, flags: number): Promise<number> {
    const at = await this.entry(va);
    await this.write64(at, pte(page, flags));
    return at;
  }

  /** Guest-physical address of the last-level entry for `va`; makes the tables above it. */
  async entry(va: bigint): Promise<number> {
    let table = this.root;
    for (let level = 2n; level > 0n; level--) {
      const at = table + Number((va >> (12n + 9n * level)) & 511n) * 8;
      let entry = await this.read64(at);
      if (entry === 0n) await this.write64(at, (entry = pte(this.nextTable++, PTE.V)));
      table = Number(entry >> 10n) * PAGE;
    }
    return table + Number((va >> 12n) & 511n) * 8;
  }

  /** A second address space, with the kernel's half of the first. */
  async newRoot(): Promise<number> {
    const root = this.nextTable++ * PAGE;
    await this.write(root + 2048, await this.read(this.root + 2048, 2048));
    return root;
  }

  // Running it, in the kernel unless it goes to a process by itself.

  /** The kernel's address of a guest-physical one. */
  va(gpa: number): bigint {
    return BigInt.asUintN(64, this.kernel + BigInt(gpa));
  }

  /** Starts code at guest-physical `gpa`; resolves with what the launcher must act on. */
  call(gpa: number, ...args: bigint[]): Promise<LguestPending> {
    this.lg.cpu.hart.setMode(1);
    this.lg.setreg(LGUEST_REG_PC, this.va(gpa));
    args.forEach((arg, i) => {
      this.lg.setreg(A0 + i, BigInt.asUintN(64, arg));
    });
    return this.lg.run();
  }

  async must(pending: Promise<LguestPending>, addr = DONE): Promise<void> {
    const { trap, addr: seen } = await pending;
    if (trap !== LGUEST_TRAP_ENTRY || seen !== BigInt(addr))
      throw new Error(`came out with ${trap}, 0x${seen.toString(16)}`);
  }

  async hcall(call: number, ...args: bigint[]): Promise<void> {
    await this.must(this.call(HCALL, BigInt(call), ...args));
  }

  /** The doubleword at a virtual address, by the kernel. */
  async load(va: bigint): Promise<bigint> {
    await this.must(this.call(LOAD, va));
    return this.lg.getreg(A2);
  }

  async store(va: bigint, value: bigint): Promise<void> {
    await this.must(this.call(STORE, va, value));
  }

  /** Puts calls into the ring, from entry `first` on. */
  async ring(first: number, ...calls: (readonly [number, ...bigint[]])[]): Promise<void> {
    for (const [n, [call, ...args]] of calls.entries()) {
      const entry = (first + n) % LHCALL_RING_SIZE;
      const values = [BigInt(call), ...args, 0n, 0n, 0n, 0n].slice(0, 5);
      for (const [i, value] of values.entries()) await this.write64(this.data('hcalls') + entry * 40 + i * 8, value);
      await this.write(this.data('hcallStatus') + entry, new Uint8Array([LHCALL_RING_FULL]));
    }
  }

  /** Goes to a process: `pc` in U-mode, by a frame at the end of the stack page and LHCALL_SRET. Interrupts as `enabled` says. */
  async sret(pc: bigint, status: number, sp = 0n, a0 = 0n): Promise<LguestPending> {
    const frame = STACK_PAGE * PAGE;
    await this.write64(frame + LGUEST_FRAME.epc, pc);
    await this.write64(frame + LGUEST_FRAME.sp, sp);
    await this.write64(frame + LGUEST_FRAME.a0, a0);
    await this.write64(frame + LGUEST_FRAME.status, BigInt(status));
    this.lg.setreg(SP, this.va(frame));
    return this.call(HCALL, BigInt(LHCALL_SRET));
  }

  /** LHCALL_SRET with the frame that sp names: the end of a handler. */
  resume(): Promise<LguestPending> {
    return this.call(HCALL, BigInt(LHCALL_SRET));
  }

  /** Loads a handler that does no more than to notify `addr`. */
  async handler(vector: number, addr: number): Promise<void> {
    const gpa = await this.code(...notify(addr));
    await this.hcall(LHCALL_LOAD_IDT_ENTRY, BigInt(vector), this.va(gpa));
  }

  /** A process: `instructions` at USER, a handler for `cause` that notifies it, and a stack. Returns where the page of its code is. */
  async process(page: number, causes: readonly number[], ...instructions: number[]): Promise<void> {
    await this.write(page * PAGE, words(...instructions));
    await this.map(USER, page, USER_RWX);
    for (const cause of causes) await this.handler(cause, cause);
    await this.hcall(LHCALL_SET_STACK, this.va((STACK_PAGE + 1) * PAGE));
  }

  /** What the host has pushed, where sp is. */
  async frame(): Promise<Record<keyof typeof LGUEST_FRAME, bigint>> {
    const gpa = Number(BigInt.asUintN(64, this.lg.getreg(SP) - this.kernel));
    const fields = Object.entries(LGUEST_FRAME).map(async ([name, at]) => [name, await this.read64(gpa + at)]);
    return Object.fromEntries(await Promise.all(fields));
  }

  check(heldRefs = 0): void {
    checkLguest(this.lg);
    checkHost(this.host, heldRefs);
  }

  /** Takes every page of it that can be taken. */
  evict(): void {
    for (let n = 0; n < 40 && this.mm.residentPages > 0; n++) this.host.reclaim.shrink(true, true, true);
  }

  end(): void {
    this.lg.close();
    this.mm.exit();
    checkHost(this.host);
  }
}

/** For a test file: the guests that are given to it are ended behind each test, after a `last` look, and the host is whole then. */
export function endedAfterEach(last = (_t: TestGuest) => {}): (make: Promise<TestGuest>) => Promise<TestGuest> {
  const guests: TestGuest[] = [];
  afterEach(() => {
    for (const t of guests.splice(0)) {
      last(t);
      t.end();
    }
  });
  return async (make) => {
    const t = await make;
    guests.push(t);
    return t;
  };
}

export function pte(page: number, flags: number): bigint {
  return (BigInt(page) << 10n) | BigInt(flags);
}

export function words(...instructions: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(instructions).buffer);
}

export const newHost = (frames: number, swap?: SwapDevice): Host => smallHost(frames, 4 * 2 ** 20, swap);

export function newDevice(host: Host, options: LguestOptions = {}): LguestDevice {
  return new LguestDevice(host, nodeEnvironment(), { nrDecodedPages: 32, nrShadowTables: 32, ...options });
}
