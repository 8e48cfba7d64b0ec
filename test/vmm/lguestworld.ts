import {
  LGUEST_DATA,
  LGUEST_DATA_BYTES,
  LguestDevice,
  LHCALL_LGUEST_INIT,
  LHCALL_NOTIFY,
  LHCALL_SHUTDOWN,
} from '../../src/lguest/index.js';
import { MemoryDisk, VirtioBlk, type VirtioDevice } from '../../src/machine/index.js';
import { Host, MemorySwap } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { type GuestReport, LguestGuest } from '../../src/vmm/index.js';
import { elfOf } from '../cli/kernels.js';

/**
 * Guests by lguest that do no more than notify: of what lies in their memory, and of what is in a list. So what is in rings and descriptors is the test's.
 *
 * Use: `await NotifyGuest.create(device, addresses)`, then write to its memory by `write`, then `run`.
 */

const MIB = 2 ** 20;
export const RAM_BYTES = 8 * MIB;
const CODE = 0x8000;
const LIST = 0x9000;
const DATA = 0xa000;
const WORDS = 0xc000;
const KERNEL_ADDRESS = 0xffff_ffc0_0000_0000n;

/** li rd, value below 2 KiB; lui rd, value >> 12: of x registers. */
const li = (rd: number, value: number) => (value << 20) | (rd << 7) | 0x13;
const lui = (rd: number, value: number) => value | (rd << 7) | 0x37;
const ECALL = 0x73;
const [A0, A1, A2, X8] = [10, 11, 12, 8];

/** INIT; then NOTIFY of each address of the list, up to a 0; then SHUTDOWN. */
const PROGRAM = [
  ...[li(A0, LHCALL_LGUEST_INIT), lui(A1, DATA), ECALL, lui(X8, LIST)],
  0x00043583, // loop: ld a1, 0(s0)
  0x00058a63, // beqz a1, off
  ...[li(A0, LHCALL_NOTIFY), ECALL],
  0x00840413, // addi s0, s0, 8
  0xfedff06f, // j loop
  ...[li(A0, LHCALL_SHUTDOWN), lui(A1, WORDS), li(A2, 1), ECALL],
];

export function createDevice(): LguestDevice {
  const swap = new MemorySwap({ sizeBytes: 8 * MIB });
  const host = new Host({ frames: 1024, arenaBytes: 32 * MIB, swap, defer: (fn) => setImmediate(fn) });
  return new LguestDevice(host, nodeEnvironment());
}

export class NotifyGuest {
  readonly guest: LguestGuest;
  readonly console: () => string;

  private constructor(guest: LguestGuest, console: () => string) {
    this.guest = guest;
    this.console = console;
  }

  static async create(lguest: LguestDevice, addresses: readonly bigint[]): Promise<NotifyGuest> {
    let console = '';
    const guest = await LguestGuest.create({
      name: 'guest',
      lguest,
      ramBytes: RAM_BYTES,
      kernel: elfOf(PROGRAM, {}, CODE),
      bootargs: '',
      gunzip: (bytes) => bytes,
      console: (bytes) => (console += Buffer.from(bytes).toString('latin1')),
      devices: [disk()],
    });
    const created = new NotifyGuest(guest, () => console);
    await created.write(LIST, Buffer.from(BigUint64Array.of(...addresses, 0n).buffer));
    const data = new DataView(new ArrayBuffer(LGUEST_DATA_BYTES));
    data.setBigUint64(LGUEST_DATA.kernelAddress, KERNEL_ADDRESS, true);
    new Uint8Array(data.buffer).fill(0xff, LGUEST_DATA.hcallStatus, LGUEST_DATA.hcalls);
    await created.write(DATA, new Uint8Array(data.buffer));
    return created;
  }

  /** By guest-physical address. */
  async write(gpa: number, bytes: Uint8Array): Promise<void> {
    const { start } = this.guest.mm.smaps()[0]!;
    await this.guest.mm.write(start + gpa, bytes);
  }

  async read(gpa: number, lenBytes: number): Promise<Buffer> {
    const bytes = Buffer.alloc(lenBytes);
    const { start } = this.guest.mm.smaps()[0]!;
    await this.guest.mm.read(start + gpa, bytes);
    return bytes;
  }

  run(): Promise<GuestReport> {
    return this.guest.run();
  }
}

/** What the page of descriptors says of the console and the disk, with the rings where a driver expects them. */
export interface FoundDevice {
  readonly type: number;
  readonly gpa: number;
  readonly featuresAt: number;
  readonly rings: readonly { size: number; irq: number; desc: number; avail: number; used: number }[];
}

export async function findDevices(guest: NotifyGuest): Promise<FoundDevice[]> {
  const page = await guest.read(RAM_BYTES, 4096);
  const found: FoundDevice[] = [];
  for (let at = 0; page[at] !== 0; ) {
    const [type, nrQueues, featureLen, configLen] = page.subarray(at) as unknown as [number, number, number, number];
    const featuresAt = at + 5 + nrQueues * 8;
    const rings = Array.from({ length: nrQueues }, (_, i) => {
      const vq = at + 5 + i * 8;
      const [size, desc] = [page.readUInt16LE(vq), page.readUInt32LE(vq + 4) * 4096];
      const avail = desc + size * 16;
      const used = Math.ceil((avail + 6 + 2 * size) / 4096) * 4096;
      return { size, irq: page.readUInt16LE(vq + 2), desc, avail, used };
    });
    found.push({ type, gpa: RAM_BYTES + at, featuresAt: RAM_BYTES + featuresAt + featureLen, rings });
    at = featuresAt + 2 * featureLen + configLen;
  }
  return found;
}

/** What a driver writes before it uses the device: VIRTIO_F_VERSION_1, and all four bits of the status. */
export async function driverIsReady(guest: NotifyGuest, { gpa, featuresAt }: FoundDevice): Promise<void> {
  await guest.write(featuresAt, Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0));
  await guest.write(gpa + 4, Uint8Array.of(0xf));
}

export interface Descriptor {
  readonly addr: bigint;
  readonly len: number;
  readonly flags: number;
  readonly next: number;
}

export function descriptors(list: readonly Descriptor[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(16 * list.length));
  list.forEach(({ addr, len, flags, next }, i) => {
    view.setBigUint64(16 * i, addr, true);
    view.setUint32(16 * i + 8, len, true);
    view.setUint16(16 * i + 12, flags, true);
    view.setUint16(16 * i + 14, next, true);
  });
  return new Uint8Array(view.buffer);
}

/** flags, idx, entries. */
export function available(idx: number, entries: readonly number[]): Uint8Array {
  return new Uint8Array(Uint16Array.of(0, idx, ...entries).buffer);
}

function disk(): VirtioDevice {
  return new VirtioBlk({ backend: new MemoryDisk(MIB) });
}
