import { CSR, type Hart, SSTATUS_FS, SSTATUS_SUM } from '../riscv/index.js';
import * as A from './abi.js';
import { LGUEST_TIMEBASE_HZ } from './clock.js';
import type { LgCpu } from './cpu.js';
import { type Fate, LG_OK } from './death.js';
import type { GuestAccess } from './guestaccess.js';
import type { Interrupts } from './interrupts.js';
import type { LguestData } from './lguestdata.js';
import { type GuestMmu, vpnOf } from './mmu.js';
import type { PageDirectories } from './pgdirs.js';
import type { Traps } from './traps.js';
import { hex64, hexAddress, toAddress, toBigint, toNumber } from './words64.js';

/**
 * What the guest's kernel asks for (Linux: lguest's hypercalls.c): `ecall` from S-mode, and what waits in the ring, first. A call that makes no sense kills the guest.
 *
 * Use: `begin` after the ecall; `run` until it answers LG_OK. A page may be absent at any step (LG_WAIT): the call that was under way is done again then, so none has
 * done anything before the last thing that it could have to wait for. An entry of the ring is free when its arguments have been taken.
 */

const REG_A0 = 10;
const NR_ARGS = 5;
const GIB_VPNS = 2 ** 18;

export class Hypercalls {
  nrCalls = 0;
  /** LHCALL_NOTIFY: for the launcher, who takes it. */
  notification: bigint | undefined;
  /** Number and arguments of the call under way, low and high halves in turn. */
  private readonly args = new Int32Array(2 * NR_ARGS);
  /** The ecall has not been done yet; an entry of the ring has been taken and not done yet. */
  private waiting = false;
  private taken = false;
  private nextEntry = 0;
  private readonly hart: Hart;
  private readonly directories: PageDirectories;
  private readonly mmu: GuestMmu;
  private readonly traps: Traps;
  private readonly interrupts: Interrupts;
  private readonly data: LguestData;
  private readonly access: GuestAccess;
  private readonly fate: Fate;

  constructor(cpu: LgCpu) {
    this.hart = cpu.hart;
    this.directories = cpu.directories;
    this.mmu = cpu.mmu;
    this.traps = cpu.traps;
    this.interrupts = cpu.interrupts;
    this.data = cpu.data;
    this.access = cpu.access;
    this.fate = cpu.fate;
  }

  /** The hart is behind an ecall. */
  begin(): void {
    this.waiting = true;
  }

  /** Whether there is something to do. */
  get isWaiting(): boolean {
    return this.waiting;
  }

  /** Does the ring's calls, then the ecall; or as much as comes before a notification from the ring. LG_OK, LG_WAIT, LG_DEAD. */
  run(): number {
    const ring = this.data.gpa < 0 ? LG_OK : this.runRing();
    if (ring !== LG_OK || this.notification !== undefined) return ring;
    for (let i = 0; i < NR_ARGS; i++) {
      this.args[2 * i] = this.hart.xLow(REG_A0 + i);
      this.args[2 * i + 1] = this.hart.xHigh(REG_A0 + i);
    }
    const done = this.data.gpa < 0 ? this.first() : this.call(false);
    if (done !== LG_OK) return done;
    this.waiting = false;
    return LG_OK;
  }

  private runRing(): number {
    for (let n = 0; n < A.LHCALL_RING_SIZE && this.notification === undefined; n++) {
      const taken = this.taken ? LG_OK : this.take();
      if (taken !== LG_OK) return taken;
      if (!this.taken) return LG_OK;
      const done = this.call(true);
      if (done !== LG_OK) return done;
      this.taken = false;
    }
    return LG_OK;
  }

  /** Takes the next entry, if it is full. */
  private take(): number {
    const { data, access, nextEntry } = this;
    const status = data.readStatus(nextEntry);
    if (status !== LG_OK || access.low === A.LHCALL_RING_FREE) return status;
    const read = data.readHcall(nextEntry, this.args);
    if (read !== LG_OK) return read;
    const freed = data.writeStatus(nextEntry, A.LHCALL_RING_FREE);
    if (freed !== LG_OK) return freed;
    this.nextEntry = (nextEntry + 1) % A.LHCALL_RING_SIZE;
    this.taken = true;
    return LG_OK;
  }

  // Arguments.

  private address(n: number): number {
    return toAddress(this.args[2 * n]!, this.args[2 * n + 1]!);
  }

  private number(n: number): number {
    return toNumber(this.args[2 * n]!, this.args[2 * n + 1]!);
  }

  private hex(n: number): string {
    return hex64(this.args[2 * n]!, this.args[2 * n + 1]!);
  }

  // Calls.

  /** The first of all. */
  private first(): number {
    const call = this.number(0);
    if (call !== A.LHCALL_LGUEST_INIT) return this.fate.kill(`hypercall ${call} before LHCALL_LGUEST_INIT`);
    const done = this.init();
    if (done === LG_OK) this.nrCalls++;
    return done;
  }

  private call(fromRing: boolean): number {
    const call = this.number(0);
    const result = fromRing && call === A.LHCALL_SRET ? this.fate.kill('LHCALL_SRET in the ring') : this.dispatch(call);
    if (result !== LG_OK) return result;
    this.nrCalls++;
    // Not LHCALL_SRET, which has set a0 to what it was.
    if (!fromRing && call !== A.LHCALL_SRET) this.hart.setXWords(REG_A0, 0, 0);
    return LG_OK;
  }

  private dispatch(call: number): number {
    switch (call) {
      case A.LHCALL_FLUSH_ASYNC:
      case A.LHCALL_SEND_INTERRUPTS:
        // Either is done by coming here.
        return LG_OK;
      case A.LHCALL_SRET:
        return this.traps.sret();
      case A.LHCALL_LGUEST_INIT:
        return this.fate.kill('LHCALL_LGUEST_INIT a second time');
      case A.LHCALL_SHUTDOWN:
        return this.shutdown();
      case A.LHCALL_NEW_PGTABLE:
      case A.LHCALL_FLUSH_TLB:
      case A.LHCALL_SET_PMD:
      case A.LHCALL_SET_PTE:
      case A.LHCALL_SET_PGD:
        return this.pageTables(call);
      case A.LHCALL_LOAD_IDT_ENTRY:
        return this.loadIdtEntry();
      case A.LHCALL_SET_STACK:
        return this.setStack();
      case A.LHCALL_TS:
        return this.setFloat(this.number(1) === 0);
      case A.LHCALL_SET_CLOCKEVENT:
        this.interrupts.setClockevent(this.number(1));
        return LG_OK;
      case A.LHCALL_HALT:
        this.interrupts.halted = true;
        return LG_OK;
      case A.LHCALL_NOTIFY:
        this.notification = toBigint(this.args[2]!, this.args[3]!);
        return LG_OK;
      default:
        return this.fate.kill(`bad hypercall ${this.hex(0)}`);
    }
  }

  private init(): number {
    const { access, data } = this;
    const gpa = this.number(1);
    if (!data.fits(gpa)) return this.fate.kill(`LHCALL_LGUEST_INIT: no struct lguest_data fits at ${this.hex(1)}`);
    const read = access.read64(gpa + A.LGUEST_DATA.kernelAddress);
    if (read !== LG_OK) return read;
    const { low, high } = access;
    const kernelVpn = vpnOf(toAddress(low, high));
    if (kernelVpn === 0 || kernelVpn % GIB_VPNS !== 0 || (low & 0xfff) !== 0)
      return this.fate.kill(
        `LHCALL_LGUEST_INIT: kernel_address ${hex64(low, high)} must be a multiple of 1 GiB, not 0`,
      );
    const bytes = access.pfnLimit * 4096;
    let written = access.write64(gpa + A.LGUEST_DATA.timebaseHz, LGUEST_TIMEBASE_HZ, 0);
    if (written === LG_OK)
      written = access.write64(gpa + A.LGUEST_DATA.memBytes, bytes | 0, Math.floor(bytes / 2 ** 32));
    if (written !== LG_OK) return written;
    data.gpa = gpa;
    this.directories.setKernelIndex(kernelVpn / GIB_VPNS);
    const told = this.interrupts.tellTime();
    if (told !== LG_OK) data.gpa = -1;
    else this.hart.setXWords(REG_A0, 0, 0);
    return told;
  }

  private shutdown(): number {
    const how = this.number(2);
    if (how !== A.LGUEST_SHUTDOWN_POWEROFF && how !== A.LGUEST_SHUTDOWN_RESTART)
      return this.fate.kill(`LHCALL_SHUTDOWN: bad reason ${this.hex(2)}`);
    let message = '';
    for (let gpa = this.number(1); message.length < A.LGUEST_MESSAGE_BYTES; gpa++) {
      const read = this.access.read8(gpa);
      if (read !== LG_OK) return read;
      if (this.access.low === 0) break;
      message += printable(this.access.low);
    }
    return this.fate.end(how === A.LGUEST_SHUTDOWN_POWEROFF ? 'poweroff' : 'restart', message);
  }

  private pageTables(call: number): number {
    const { directories } = this;
    if (call === A.LHCALL_FLUSH_TLB) {
      if (this.number(1) === 0) directories.release(directories.current);
      else directories.releaseAll();
      return LG_OK;
    }
    const root = this.number(1);
    if (root % 4096 !== 0 || !(root < this.access.pfnLimit * 4096))
      return this.fate.kill(`hypercall ${call}: bad page table ${this.hex(1)}`);
    if (call === A.LHCALL_NEW_PGTABLE) return this.newPgtable(root);
    if (call === A.LHCALL_SET_PGD) return this.setPgd(root);
    const va = this.address(2);
    if (Number.isNaN(va)) return this.fate.kill(`hypercall ${call}: bad address ${this.hex(2)}`);
    if (call === A.LHCALL_SET_PTE) return this.mmu.setPte(root, va, this.args[6]!, this.args[7]!);
    directories.releaseMiddleEntry(directories.directoryOf(root), vpnOf(va));
    return LG_OK;
  }

  private newPgtable(root: number): number {
    this.directories.switchTo(root);
    return LG_OK;
  }

  private setPgd(root: number): number {
    const { directories } = this;
    const index = this.number(2);
    if (!(index < 512)) return this.fate.kill(`LHCALL_SET_PGD: bad index ${this.hex(2)}`);
    directories.releaseRootEntry(directories.directoryOf(root), index);
    return LG_OK;
  }

  private setFloat(on: boolean): number {
    this.hart.csr.write(CSR.sstatus, SSTATUS_SUM | (on ? SSTATUS_FS : 0), 0);
    return LG_OK;
  }

  private loadIdtEntry(): number {
    const vector = this.number(1);
    const handler = this.address(2);
    if (!(vector < A.LGUEST_NR_VECTORS)) return this.fate.kill(`LHCALL_LOAD_IDT_ENTRY: bad vector ${this.hex(1)}`);
    if (Number.isNaN(handler) || handler % 4 !== 0)
      return this.fate.kill(`LHCALL_LOAD_IDT_ENTRY: bad handler ${this.hex(2)}`);
    this.traps.setHandler(vector, handler);
    return LG_OK;
  }

  private setStack(): number {
    const top = this.address(1);
    const inKernel = vpnOf(top - 1) >>> 18 >= this.directories.kernelIndex;
    if (Number.isNaN(top) || top % 16 !== 0 || !inKernel)
      return this.fate.kill(
        `LHCALL_SET_STACK: bad stack ${hexAddress(top)}: it must end in the kernel's half, 16-aligned`,
      );
    this.traps.stackTop = top;
    return LG_OK;
  }
}

/** A guest's message goes to somebody's terminal. */
function printable(byte: number): string {
  return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '?';
}
