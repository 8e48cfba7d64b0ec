import { KernelError } from '../base/index.js';
import type { Host, Mm } from '../mm/index.js';
import { RiscvEngine } from '../riscv/index.js';
import { CAPABILITIES, KVM_CAP_MAX_VCPUS, KVM_CAP_NR_VCPUS } from './capabilities.js';
import type { Environment } from './environment.js';
import { frameTagsOf } from './framecheck.js';
import { KVM_MAX_VCPUS, type KvmState, Vm, type VmOptions } from './vm.js';

/**
 * What `/dev/kvm` is to Linux: makes VMs on one host memory, and says what they can do.
 */

const DEFAULT_THREAD_DECODED_PAGES = 512;

export interface KvmOptions {
  /** Pages of guest code kept decoded, for all VMs together, 16 KiB each; default 2048. */
  readonly nrDecodedPages?: number;
  /** The same for each vCPU with a thread of its own; default 512. */
  readonly nrThreadDecodedPages?: number;
  /**
   * The only vCPU inside `run` blocks the thread while a page of its is read, where the swap device can. For processes that
   * do nothing else. WHY: our guest of 64 MiB in 24 takes 2.1 s of processor time instead of 4.3 s, and 1.6 s of wall time.
   */
  readonly blockWhenAlone?: boolean;
  /** For tests: no guest may access a frame that is not its memory's any more, which each access is looked at for (framecheck.ts); some times slower. The host should be made with `debug`. */
  readonly checkFrames?: boolean;
}

export class Kvm {
  readonly host: Host;
  readonly env: Environment;
  private readonly engine: RiscvEngine;
  private readonly state: KvmState;

  constructor(host: Host, env: Environment, options: KvmOptions = {}) {
    this.host = host;
    this.env = env;
    this.engine = new RiscvEngine({
      memory: host.memory,
      alloc: (lenBytes, align) => host.arenaAlloc(lenBytes, align),
      free: (addr, lenBytes) => host.arenaFree(addr, lenBytes),
      ...(options.checkFrames && { tagsAddr: frameTagsOf(host.frames).generationAddr }),
      ...(env.hostIsTso !== undefined && { hostIsTso: env.hostIsTso }),
      ...(options.nrDecodedPages && { nrDecodedPages: options.nrDecodedPages }),
    });
    this.state = {
      nrRunning: 0,
      nrWaiting: 0,
      blockWhenAlone: options.blockWhenAlone ?? false,
      checkFrames: options.checkFrames ?? false,
      nrThreadDecodedPages: options.nrThreadDecodedPages ?? DEFAULT_THREAD_DECODED_PAGES,
    };
  }

  /** A VM whose memslots lie in `mm`. Throws KernelError EINVAL where that is of another host, or for an option; ENOMEM. */
  createVm(mm: Mm, options: VmOptions = {}): Vm {
    if (mm.host !== this.host)
      throw new KernelError('EINVAL', 'createVm', `${mm.name} must be an mm of this Kvm's own host`);
    return new Vm(mm, this.engine, this.env, this.state, options);
  }

  /** 0 where the capability is absent, else 1 or its number (capabilities.ts). */
  checkExtension(cap: number): number {
    if (cap === KVM_CAP_NR_VCPUS || cap === KVM_CAP_MAX_VCPUS) return KVM_MAX_VCPUS;
    return CAPABILITIES.get(cap) ?? 0;
  }
}
