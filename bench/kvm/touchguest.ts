import { KVM_EXIT_SYSTEM_EVENT, Kvm, type Vcpu, type Vm } from '../../src/kvm/index.js';
import { RAM_BASE } from '../../src/machine/index.js';
import {
  FAULT_FLAG_WRITE,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  type Mm,
  PAGE_SIZE,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { CSR } from '../../src/riscv/index.js';

/**
 * The guest of bench/linux-peer/kvm.c on Unpin: one program, with page tables of its own, that reads one byte of each page of a stretch. The
 * pages are in the host's page table; `takeEntries` takes the external ones away, by mprotect and the notifier.
 *
 * Use: `await TouchGuest.create(nrPages, options)`, `takeEntries`, `await touch(...)`, or `touchForEver` on all of its vCPUs; `await close()`.
 */

const CODE = RAM_BASE;
const ROOT = RAM_BASE + 0x1000;
const LEVEL1 = RAM_BASE + 0x2000;
const TABLES = RAM_BASE + 2 ** 20;
const PAGES_FROM = RAM_BASE + 2 ** 24;
/** Of one vCPU; each further one decodes code for itself. */
const ARENA_BYTES = 80 * 2 ** 20;
const ARENA_PER_VCPU = 16 * 2 ** 20;
/** Frames beside the guest's. */
const SPARE_FRAMES = 2048;

/** loop: lb t0, 0(a0); add a0, a0, a2; addi a1, a1, -1; bnez a1, loop; li a7, 8; ecall: the legacy SBI's shutdown. */
const TOUCH = [0x00050283, 0x00c50533, 0xfff58593, 0xfe059ae3, 0x00800893, 0x00000073];
/** The same for ever: a3 and a4 are what a0 and a1 begin with. mv a0, a3; mv a1, a4; loop as above; j to the first. */
const TOUCH_FOR_EVER = [0x00068513, 0x00070593, 0x00050283, 0x00c50533, 0xfff58593, 0xfe059ae3, 0xfe9ff06f];
const FOR_EVER = CODE + TOUCH.length * 4;

const PTE_V = 1;
/** V, R, W, X, A, D. */
const PTE_LEAF = 0xcf;
const SATP_SV39 = 8n << 60n;

/** Bundled, a benchmark lies in bench/. */
const VCPU_WORKER = new URL('../dist/node/vcpuworker.js', import.meta.url);

export interface TouchOptions {
  readonly nrVcpus: number;
  /** Each vCPU in a thread of its own; else all on this one. */
  readonly threads: boolean;
}

export class TouchGuest {
  readonly host: Host;
  readonly mm: Mm;
  readonly vm: Vm;
  readonly vcpus: readonly Vcpu[];
  private readonly hva: number;
  private readonly ramBytes: number;

  private constructor(host: Host, nrPages: number, { nrVcpus, threads }: TouchOptions) {
    this.host = host;
    this.ramBytes = PAGES_FROM - RAM_BASE + nrPages * PAGE_SIZE;
    this.mm = host.createMm();
    this.hva = this.mm.mmap(0, this.ramBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    const env = nodeEnvironment({ vcpuWorker: VCPU_WORKER });
    this.vm = new Kvm(host, env).createVm(this.mm, { nrVcpus, threads });
    const { hva: userspaceAddr, ramBytes: memorySize } = this;
    this.vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM_BASE, memorySize, userspaceAddr });
    this.vcpus = Array.from({ length: nrVcpus }, (_, id) => this.vm.createVcpu(id));
  }

  static async create(nrPages: number, options: TouchOptions): Promise<TouchGuest> {
    const frames = nrPages + (PAGES_FROM - RAM_BASE) / PAGE_SIZE + SPARE_FRAMES;
    const arenaBytes = ARENA_BYTES + options.nrVcpus * ARENA_PER_VCPU;
    const host = new Host({ frames, arenaBytes, defer: (fn) => setImmediate(fn) });
    const guest = new TouchGuest(host, nrPages, options);
    await guest.load();
    return guest;
  }

  /** Program and page tables (virtual is physical), and all its memory in frames. */
  private async load(): Promise<void> {
    for (let offset = 0; offset < this.ramBytes; offset += PAGE_SIZE) {
      this.mm.putPage(this.mm.tryGetPage(this.hva + offset, FAULT_FLAG_WRITE));
    }
    await this.write(CODE, Uint32Array.from([...TOUCH, ...TOUCH_FOR_EVER]));
    await this.write(ROOT + (RAM_BASE / 2 ** 30) * 8, BigUint64Array.of(table(LEVEL1)));
    const nrTables = Math.ceil(this.ramBytes / 2 ** 21);
    await this.write(
      LEVEL1,
      BigUint64Array.from({ length: nrTables }, (_, i) => table(TABLES + i * PAGE_SIZE)),
    );
    const leaf = (i: number) => (BigInt(RAM_BASE / PAGE_SIZE + i) << 10n) | BigInt(PTE_LEAF);
    await this.write(
      TABLES,
      BigUint64Array.from({ length: this.ramBytes / PAGE_SIZE }, (_, i) => leaf(i)),
    );
    for (const vcpu of this.vcpus) {
      if (!vcpu.isStarted) vcpu.start(BigInt(CODE), 0n);
      const [low, high] = [satp(), satp() >> 32n].map((half) => Number(BigInt.asIntN(32, half)));
      vcpu.hart.csr.write(CSR.satp, low!, high!);
    }
  }

  private write(gpa: number, words: Uint32Array | BigUint64Array): Promise<void> {
    return this.mm.write(this.hva + gpa - RAM_BASE, new Uint8Array(words.buffer));
  }

  /** No external entry for the pages is left; they stay where they are. */
  takeEntries(): void {
    const from = this.hva + PAGES_FROM - RAM_BASE;
    this.mm.mprotect(from, this.ramBytes - (PAGES_FROM - RAM_BASE), PROT_NONE);
    this.mm.mprotect(from, this.ramBytes - (PAGES_FROM - RAM_BASE), PROT_READ | PROT_WRITE);
  }

  /** The guest reads `nrPages`, each `stride` pages after the last: nanoseconds of processor time, external faults, and pages that were entered beside theirs. */
  async touch(nrPages: number, stride: number): Promise<{ ns: number; faults: number; prefetched: number }> {
    const vcpu = this.vcpus[0]!;
    const { hart } = vcpu;
    hart.pc = BigInt(CODE);
    hart.setX(10, BigInt(PAGES_FROM));
    hart.setX(11, BigInt(nrPages));
    hart.setX(12, BigInt(stride * PAGE_SIZE));
    const before = this.vm.faults.minor;
    const { prefetched } = this.vm.shadow.stats();
    const start = process.cpuUsage();
    const exit = await vcpu.run();
    const { user, system } = process.cpuUsage(start);
    if (exit.reason !== KVM_EXIT_SYSTEM_EVENT) throw new Error(`bench: the guest ended with exit ${exit.reason}`);
    const entered = this.vm.shadow.stats().prefetched - prefetched;
    return { ns: (user + system) * 1000, faults: this.vm.faults.minor - before, prefetched: entered };
  }

  /** The vCPU reads the first `nrPages` over and over, until `vcpu.immediateExit()`. */
  async touchForEver(vcpu: Vcpu, nrPages: number): Promise<void> {
    const { hart } = vcpu;
    hart.pc = BigInt(FOR_EVER);
    hart.setX(12, BigInt(PAGE_SIZE));
    hart.setX(13, BigInt(PAGES_FROM));
    hart.setX(14, BigInt(nrPages));
    await vcpu.run();
  }

  /** Host virtual address of page `i`. */
  pageHva(i: number): number {
    return this.hva + PAGES_FROM - RAM_BASE + i * PAGE_SIZE;
  }

  async close(): Promise<void> {
    await this.vm.destroy();
    this.mm.exit();
    await this.host.stop();
  }
}

function table(address: number): bigint {
  return (BigInt(address / PAGE_SIZE) << 10n) | BigInt(PTE_V);
}

function satp(): bigint {
  return SATP_SV39 | BigInt(ROOT / PAGE_SIZE);
}
