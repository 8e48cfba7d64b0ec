import { checkVm, KVM_EXIT_MMIO, Kvm, kvmExitName, type Vcpu, type VcpuExit, type Vm } from '../../src/kvm/index.js';
import { MmioBus, RAM_BASE } from '../../src/machine/index.js';
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
import { ld, sd, sfenceVma } from '../isa/assemble.js';
import { smallHost } from '../smallhost.js';
import { A0, A1, code, LOOP, T0, ZERO } from './guestcode.js';

/**
 * A VM whose guest does one access at a time, as the test says: routines at the start of its RAM load, store or fence, then store to
 * an address where there is nothing, and come out with KVM_EXIT_MMIO.
 */

export const PAGE = 4096;
/** Beyond RAM; with paging on, mapped there one to one. */
export const STOP = 0x4000_0000;
const LOAD = 0;
const STORE = 0x40;
const FENCE = 0x80;
const SPIN = 0xc0;
/** Guest-physical pages: routines, and the tables of the guest. */
export const FIRST_DATA_PAGE = 16;

export interface TestVmOptions {
  frames?: number;
  ramPages?: number;
  swap?: SwapDevice;
  host?: Host;
  kvm?: Kvm;
  nrShadowPages?: number;
}

export class TestVm {
  readonly host: Host;
  readonly kvm: Kvm;
  readonly mm: Mm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly hva: number;
  readonly ramPages: number;

  private constructor(options: TestVmOptions) {
    this.ramPages = options.ramPages ?? 64;
    this.host = options.host ?? newHost(options.frames ?? 256, options.swap);
    this.kvm = options.kvm ?? new Kvm(this.host, nodeEnvironment(), { nrDecodedPages: 64 });
    this.mm = this.host.createMm();
    this.hva = this.mm.mmap(0, this.ramPages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    this.vm = this.kvm.createVm(this.mm, { bus: new MmioBus(), nrShadowPages: options.nrShadowPages ?? 32 });
    this.addSlot();
    this.vcpu = this.vm.createVcpu(0);
    this.vcpu.hart.setX(T0, BigInt(STOP));
  }

  static async create(options: TestVmOptions = {}): Promise<TestVm> {
    const t = new TestVm(options);
    await t.mm.write(t.hva + LOAD, code(ld(A1, 0, A0), sd(ZERO, 0, T0)));
    await t.mm.write(t.hva + STORE, code(sd(A1, 0, A0), sd(ZERO, 0, T0)));
    await t.mm.write(t.hva + FENCE, code(sfenceVma(ZERO, ZERO), sd(ZERO, 0, T0)));
    await t.mm.write(t.hva + SPIN, code(LOOP));
    return t;
  }

  addSlot(): void {
    const memorySize = this.ramPages * PAGE;
    this.vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM_BASE, memorySize, userspaceAddr: this.hva });
  }

  deleteSlot(): void {
    this.vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM_BASE, memorySize: 0, userspaceAddr: this.hva });
  }

  /** Guest-physical address of a page of RAM. */
  gpa(page: number): number {
    return RAM_BASE + page * PAGE;
  }

  /** Host virtual address of the same. */
  at(page: number): number {
    return this.hva + page * PAGE;
  }

  /** Starts a routine; resolves with the next exit. */
  call(routine: number, address = 0n, value = 0n): Promise<VcpuExit> {
    const { hart } = this.vcpu;
    hart.pc = BigInt(RAM_BASE + routine);
    hart.setX(A0, address);
    hart.setX(A1, value);
    return this.vcpu.run();
  }

  private async must(exit: Promise<VcpuExit>): Promise<void> {
    const got = await exit;
    if (got.reason !== KVM_EXIT_MMIO || got.physAddr !== STOP) {
      throw new Error(
        `the guest came out with ${kvmExitName(got)}: ${JSON.stringify(got, (_k, v) => (typeof v === 'bigint' ? `${v}` : v))}`,
      );
    }
  }

  async load(address: number): Promise<bigint> {
    await this.must(this.call(LOAD, BigInt(address)));
    return this.vcpu.hart.getX(A1);
  }

  async store(address: number, value: bigint): Promise<void> {
    await this.must(this.call(STORE, BigInt(address), value));
  }

  async fence(): Promise<void> {
    await this.must(this.call(FENCE));
  }

  spin(): Promise<VcpuExit> {
    return this.call(SPIN);
  }

  tryLoad(address: number): Promise<VcpuExit> {
    return this.call(LOAD, BigInt(address));
  }

  check(heldRefs = 0): void {
    checkVm(this.vm);
    checkHost(this.host, heldRefs);
  }

  destroy(): void {
    this.vm.destroy();
    this.mm.exit();
  }
}

export const newHost = (frames: number, swap?: SwapDevice): Host => smallHost(frames, 8 * 2 ** 20, swap);
