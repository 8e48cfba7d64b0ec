import { slow } from 'unpin/explore';
import { checkVm, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, Kvm, type Vm } from 'unpin/kvm';
import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
  type SwapDevice,
} from 'unpin/mm';
import { sd } from '../isa/assemble.js';
import { A0, A1, code, T0, ZERO } from '../kvm/guestcode.js';
import { byteAt, ENV } from './world.js';

/** A VM with one vCPU on the mm thread, whose guest stores 2 to its second page and then says so: what the models of kvm run. */

export const RAM = 0x8000_0000;
/** Where no memory is: an access there leaves the guest. */
const STOP = 0x4000_0000;
export const RW = PROT_READ | PROT_WRITE;
const CODE = 0;
export const DATA = 4096;
/** Room for two VMs. */
export const ARENA_BYTES = 2 ** 21;

export interface GuestOptions {
  /** Default: one whose reads are events of their own. */
  swap?: SwapDevice;
  nrPages?: number;
  /** Where the guest stores, in its RAM. */
  storeAt?: number;
}

export const slowSwap = () => slow(new MemorySwap({ sizeBytes: 65536 }), 'read');

export function setup({ swap = slowSwap(), nrPages = 2, storeAt = DATA }: GuestOptions = {}) {
  const host = new Host({
    frames: 64,
    arenaBytes: ARENA_BYTES,
    pageTables: 12,
    swap,
    defer: ENV.defer,
  });
  const mm = host.createMm();
  const va = mm.mmap(0, nrPages * 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va + CODE, code(sd(A1, 0, A0), sd(ZERO, 0, T0)));
  for (let page = 1; page < nrPages; page++) mm.writeSync(va + page * 4096, new Uint8Array([1]));
  const kvm = new Kvm(host, ENV, { nrDecodedPages: 4 });
  return {
    host,
    mm,
    va,
    kvm,
    ...makeVm(kvm, mm, va, nrPages, storeAt),
    stored: false,
    child: undefined as Mm | undefined,
  };
}

/** A VM over the memory of `setup`. */
export function makeVm(kvm: Kvm, mm: Mm, va: number, nrPages = 2, storeAt = DATA) {
  const vm = kvm.createVm(mm, { nrShadowPages: 3 });
  setSlot({ vm, va }, nrPages * 4096);
  const vcpu = vm.createVcpu(0);
  vcpu.hart.pc = BigInt(RAM + CODE);
  vcpu.hart.setX(T0, BigInt(STOP));
  vcpu.hart.setX(A0, BigInt(RAM + storeAt));
  vcpu.hart.setX(A1, 2n);
  return { vm, vcpu };
}

export type State = ReturnType<typeof setup>;

export function setSlot({ vm, va }: { vm: Vm; va: number }, memorySize: number): void {
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize, userspaceAddr: va });
}

export async function guest(state: State): Promise<void> {
  const exit = await state.vcpu.run();
  if (exit.reason !== KVM_EXIT_MMIO || exit.physAddr !== STOP)
    throw new Error(`the guest came out with ${exit.reason}`);
  state.stored = true;
}

/** As `guest`, where the VM may be destroyed meanwhile. */
export async function doomedGuest({ vcpu }: Pick<State, 'vcpu'>): Promise<void> {
  const exit = await vcpu.run();
  const stopped = exit.reason === KVM_EXIT_MMIO && exit.physAddr === STOP;
  if (!stopped && exit.reason !== KVM_EXIT_SHUTDOWN) throw new Error(`the guest came out with ${exit.reason}`);
}

export const evict = ({ host }: Pick<State, 'host'>) => void host.reclaim.shrink(true, true, true);

/** `offset`: where in the data page it is. */
export async function storeIsThere(state: State, offset = 0): Promise<string | undefined> {
  const { host, mm, va, vm, vcpu } = state;
  checkVm(vm);
  // The instruction that was waited for has retired.
  vcpu.destroy();
  checkHost(host);
  const found = byteAt(mm, va + DATA + offset);
  return found === 2 ? undefined : `N15: the guest's store is lost: ${found}`;
}
