import { type ConformanceAdapter, ReferenceDriver } from '../../src/conformance/index.js';
import { GuestRam } from '../../src/guestram/index.js';
import { KVM_EXIT_MMIO, Kvm } from '../../src/kvm/index.js';
import { LGUEST_REG_PC, type Lguest, LguestDevice } from '../../src/lguest/index.js';
import { MmioBus, RAM_BASE } from '../../src/machine/index.js';
import {
  type Host,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  type Mm,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { ld, sd } from '../isa/assemble.js';
import { A0, A1, code, T0, ZERO } from '../kvm/guestcode.js';
import { STOP } from '../kvm/testvm.js';

/** The drivers of this repository, as the conformance suite sees them. */

export const reference: ConformanceAdapter = {
  name: 'the reference driver',
  hostOptions: { defer: (fn) => setImmediate(fn) },
  young: true,
  threads: true,
  create: (mm, va, lenBytes) => new ReferenceDriver(mm, va, lenBytes),
};

/** By the asynchronous way, which can wait for a bracket to end. */
export const guestRam: ConformanceAdapter = {
  name: 'GuestRam',
  create(mm, va, lenBytes) {
    const ram = GuestRam.over(mm, va, lenBytes);
    const access = async <T>(at: number, write: boolean, use: (pa: number) => T): Promise<T> => {
      for (let pa: number; ; await ram.faultIn(at - va, write))
        if ((pa = ram.tryTranslate(at - va, write)) >= 0) return use(pa);
    };
    return {
      load: (at) => access(at, false, (pa) => mm.host.u8[pa]!),
      store: (at, value) => access(at, true, (pa) => void (mm.host.u8[pa] = value)),
      destroy: () => ram.destroy(),
    };
  },
};

/** The same, blocking. */
export const guestRamBlocking: ConformanceAdapter = {
  name: 'GuestRam, blocking',
  blocks: true,
  create(mm, va, lenBytes) {
    const ram = GuestRam.over(mm, va, lenBytes);
    const load = (at: number) => ram.readUint8(at - va);
    const store = (at: number, value: number) => ram.writeUint8(at - va, value);
    return { load, store, destroy: () => ram.destroy() };
  },
};

const kvms = new WeakMap<Host, Kvm>();
const DATA = 2 ** 24;
const LOAD = 0;
const STORE = 64;

function kvmOf(host: Host): Kvm {
  let kvm = kvms.get(host);
  if (kvm === undefined) kvms.set(host, (kvm = new Kvm(host, nodeEnvironment(), { nrDecodedPages: 16 })));
  return kvm;
}

/** Its routines, in an mm page of their own. */
function loadCode(mm: Mm): number {
  const va = mm.mmap(0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va + LOAD, code(ld(A1, 0, A0), sd(ZERO, 0, T0)));
  mm.writeSync(va + STORE, code(sd(A1, 0, A0), sd(ZERO, 0, T0)));
  return va;
}

/** A guest that loads or stores a doubleword and comes out. */
export const kvm: ConformanceAdapter = {
  name: 'kvm',
  young: true,
  hostOptions: { arenaBytes: 8 * 2 ** 20, defer: (fn) => setImmediate(fn) },
  create(mm, va, lenBytes) {
    const vm = kvmOf(mm.host).createVm(mm, { bus: new MmioBus(), nrShadowPages: 16 });
    const routines = loadCode(mm);
    const slot = { slot: 0, guestPhysAddr: RAM_BASE, memorySize: PAGE_SIZE, userspaceAddr: routines };
    vm.setUserMemoryRegion(slot);
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: RAM_BASE + DATA, memorySize: lenBytes, userspaceAddr: va });
    const vcpu = vm.createVcpu(0);
    vcpu.hart.setX(T0, BigInt(STOP));
    let destroyed = false;
    const run = async (routine: number, at: number, value: number): Promise<void> => {
      if (destroyed) throw new Error('the VM is destroyed');
      vcpu.hart.pc = BigInt(RAM_BASE + routine);
      vcpu.hart.setX(A0, BigInt(RAM_BASE + DATA + at - va));
      vcpu.hart.setX(A1, BigInt(value));
      const exit = await vcpu.run();
      if (exit.reason !== KVM_EXIT_MMIO || exit.physAddr !== STOP) throw new Error(`exit ${exit.reason}`);
    };
    return {
      async load(at) {
        await run(LOAD, at, 0);
        return Number(vcpu.hart.getX(A1) & 0xffn);
      },
      store: (at, value) => run(STORE, at, value),
      destroy() {
        destroyed = true;
        vm.destroy();
        if (!mm.exited) mm.munmap(routines, PAGE_SIZE);
      },
    };
  },
};

const lguestDevices = new WeakMap<Host, LguestDevice>();
/** Its routines lie so many pages before the data of the first instance, those of another further away, and nothing in between. */
const CODE_PAGES = 8;
const nrLguests = new WeakMap<Mm, number>();
/** Where the device is that its stores come out for: beyond its memory. */
const DEVICE_PAGES = 2 ** 12;

function lguestOf(host: Host): LguestDevice {
  let device = lguestDevices.get(host);
  if (device === undefined) {
    device = new LguestDevice(host, nodeEnvironment(), { nrDecodedPages: 16, nrShadowTables: 16 });
    lguestDevices.set(host, device);
  }
  return device;
}

/** A guest that loads or stores a doubleword and comes out, as kvm's, without page tables of its own. */
export const lguest: ConformanceAdapter = {
  name: 'lguest',
  young: true,
  hostOptions: { arenaBytes: 2 * 2 ** 20, defer: (fn) => setImmediate(fn) },
  async create(mm, va, lenBytes) {
    const nr = (nrLguests.get(mm) ?? 0) + 1;
    nrLguests.set(mm, nr);
    const base = va - nr * CODE_PAGES * PAGE_SIZE;
    mm.mmap(base, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
    mm.writeSync(base + LOAD, code(ld(A1, 0, A0), sd(ZERO, 0, T0)));
    mm.writeSync(base + STORE, code(sd(A1, 0, A0), sd(ZERO, 0, T0)));
    const pfnLimit = (va + lenBytes - base) / PAGE_SIZE;
    const stop = (DEVICE_PAGES - 1) * PAGE_SIZE;
    const open = async (): Promise<Lguest> => {
      const lg = lguestOf(mm.host).open(mm);
      await lg.initialize({ base, pfnLimit, deviceLimit: DEVICE_PAGES, start: 0 });
      lg.setreg(T0, BigInt(stop));
      return lg;
    };
    let lg = await open();
    const run = async (routine: number, at: number, value: number): Promise<void> => {
      // A guest whose memory is refused is dead: the next access is another's.
      if (lg.cpu.fate.death !== undefined) {
        lg.close();
        lg = await open();
      }
      lg.setreg(LGUEST_REG_PC, BigInt(routine));
      lg.setreg(A0, BigInt(at - base));
      lg.setreg(A1, BigInt(value));
      const { trap, addr } = await lg.run();
      if (addr !== BigInt(stop)) throw new Error(`came out with ${trap}, 0x${addr.toString(16)}`);
    };
    let destroyed = false;
    return {
      async load(at) {
        if (destroyed) throw new Error('the guest is gone');
        await run(LOAD, at, 0);
        return Number(lg.getreg(A1) & 0xffn);
      },
      async store(at, value) {
        if (destroyed) throw new Error('the guest is gone');
        await run(STORE, at, value);
      },
      destroy() {
        destroyed = true;
        lg.close();
        if (!mm.exited) mm.munmap(base, PAGE_SIZE);
      },
    };
  },
};
