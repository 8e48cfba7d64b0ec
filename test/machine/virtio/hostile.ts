import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type BlockBackend,
  type EthernetPort,
  type FileSystemBackend,
  MemoryDisk,
  OverlayDisk,
  PCI_ECAM_BASE,
  RAM_BASE,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VirtioBalloon,
  VirtioBlk,
  VirtioConsole,
  type VirtioDevice,
  VirtioFs,
  VirtioNet,
  type VirtioPci,
  VirtioRng,
} from '../../../src/machine/index.js';
import { openFolder } from '../../../src/node/index.js';
import { TestBoard, TestDriver, until } from './driver.js';
import { EchoDevice } from './echo.js';

/**
 * A guest that does what it likes to PCI, to virtio's registers and to the rings, all of it from a seed. What must hold whatever it does: nothing
 * throws out of the bus, all of it ends, no device touches memory that no address of the guest's leads to or moves it in pieces of any size, each tells
 * its reason at most once, a reset brings each back; and another guest that shares the disk's image sees nothing of it.
 */

const GUARD_BYTES = 0x1_0000;
const HOSTILE_BYTES = 0x3_0000;
const DISK_BYTES = 1 << 18;
/** No device moves more in one access. */
const MAX_ACCESS_BYTES = 128 * 1024;
const GUARD = 0xa5;
/** The file system's number on the bus. */
const FS_NUMBER = 7;

export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = Math.imul(seed, 0x9e37_79b9) | 1;
  }

  /** A whole number below `limit`. */
  below(limit: number): number {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    return (this.state >>> 0) % limit;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** A network that brings each frame back, later. */
class Mirror implements EthernetPort {
  private receive: (frame: Uint8Array) => void = () => {};

  attach(receive: (frame: Uint8Array) => void): void {
    this.receive = receive;
  }

  transmit(frame: Uint8Array): void {
    const copy = frame.slice();
    setImmediate(() => this.receive(copy));
  }

  close(): void {}
}

class Guest {
  readonly board = new TestBoard(GUARD_BYTES + HOSTILE_BYTES);
  readonly plugged: { pci: VirtioPci; number: number }[];

  constructor(base: BlockBackend, fs: FileSystemBackend) {
    const { memory } = this.board;
    memory.bytes.fill(GUARD, 0, GUARD_BYTES);
    const devices: VirtioDevice[] = [
      new VirtioBlk({ backend: new OverlayDisk(base, new MemoryDisk(DISK_BYTES)) }),
      new VirtioConsole({ sink: () => {} }),
      new VirtioRng((bytes) => bytes.fill(7)),
      new EchoDevice(),
      new VirtioNet({ mac: Uint8Array.of(2, 0, 0, 0, 0, 1), port: new Mirror() }),
      new VirtioBalloon({ memory: { discard: () => {} } }),
      new VirtioFs({ tag: 'folder', fs }),
    ];
    this.plugged = devices.map((device) => this.board.plug(device));
  }

  /** A sector of the disk, as a driver reads it that knows what it does. */
  async readSector(sector: number): Promise<Uint8Array> {
    const { board } = this;
    const driver = new TestDriver(board, 1);
    driver.status = 0;
    await until(() => driver.status === 0, 'the reset did not end');
    driver.negotiate(0n);
    const queue = driver.queue(0, RAM_BASE + GUARD_BYTES);
    driver.start();
    const [header, data] = [GUARD_BYTES + 0x1000, GUARD_BYTES + 0x2000];
    board.memory.bytes.fill(0, header, header + 16);
    board.memory.view.setUint32(header + 8, sector, true);
    queue.offer(
      queue.chain([
        { gpa: RAM_BASE + header, lenBytes: 16 },
        { gpa: RAM_BASE + data, lenBytes: 513, write: true },
      ]),
    );
    queue.notify();
    await until(() => queue.take().length === 1);
    return board.memory.bytes.slice(data, data + 513);
  }
}

export interface HostileReport {
  /** What was wrong; empty as it must be. */
  wrong: string[];
  reasons: string[];
  writtenBytes: number;
  /** Made by the guest in the shared folder. */
  nrFiles: number;
}

export async function hostile(seed: number, nrActs: number): Promise<HostileReport> {
  const random = new Random(seed);
  const base = new MemoryDisk(DISK_BYTES);
  await base.write(0, [new Uint8Array(DISK_BYTES).fill(0x11)]);
  const parent = mkdtempSync(join(tmpdir(), 'unpin-hostile-'));
  writeFileSync(join(parent, 'outside'), 'outside');
  mkdirSync(join(parent, 'folder'));
  const fs = await openFolder(join(parent, 'folder'));
  const guest = new Guest(base, fs);
  const victim = new Guest(base, fs);
  guest.board.memory.absent = () => random.below(8) === 0;
  const acts = new Acts(
    guest.board,
    random,
    guest.plugged.map(({ number }) => number),
  );
  for (let i = 0; i < nrActs; i++) {
    acts.one();
    if (random.below(6) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await acts.mounted();
  const wrong = await look(guest, victim, base);
  if (readFileSync(join(parent, 'outside'), 'utf8') !== 'outside' || readdirSync(parent).length !== 2)
    wrong.push('something outside the folder has changed');
  const nrFiles = readdirSync(join(parent, 'folder')).length;
  await fs.close();
  rmSync(parent, { recursive: true, force: true });
  return {
    wrong,
    reasons: guest.board.reasons,
    writtenBytes: guest.board.memory.writtenBytes,
    nrFiles,
  };
}

async function look(guest: Guest, victim: Guest, base: MemoryDisk): Promise<string[]> {
  const wrong: string[] = [];
  const { board } = guest;
  for (const { pci } of guest.plugged) {
    pci.state.setStatus(0);
    await until(() => pci.state.status === 0, `${pci.fn.name}: the reset did not end`);
  }
  await until(() => board.memory.waiting === 0);
  const { writtenBytes } = board.memory;
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  if (board.memory.writtenBytes !== writtenBytes) wrong.push('something was written after the reset');
  if (board.memory.bytes.subarray(0, GUARD_BYTES).some((byte) => byte !== GUARD)) wrong.push('the guard was written');
  if (board.memory.largestAccess > MAX_ACCESS_BYTES) wrong.push(`an access of ${board.memory.largestAccess} bytes`);
  const told = board.reasons.map((reason) => reason.split(':')[0]);
  if (new Set(told).size !== told.length) wrong.push(`told twice: ${board.reasons.join('; ')}`);
  board.memory.absent = () => false;
  if ((await guest.readSector(3))[512] !== 0) wrong.push('the disk does not work after a reset');
  const seen = await victim.readSector(3);
  if (seen[512] !== 0 || seen.subarray(0, 512).some((byte) => byte !== 0x11)) wrong.push('the other guest saw it');
  const image = new Uint8Array(DISK_BYTES);
  await base.read(0, [image]);
  if (image.some((byte) => byte !== 0x11)) wrong.push('the image was written');
  return wrong;
}

/** FUSE_INIT; and requests once that was answered. */
const INIT = 26;
const NR_REQUESTS = 20;

class Acts {
  private readonly board: TestBoard;
  private readonly random: Random;
  private readonly numbers: readonly number[];
  /** Of the queues that were set up, by where they are. */
  private readonly sizes = new Map<number, number>();

  constructor(board: TestBoard, random: Random, numbers: readonly number[]) {
    this.board = board;
    this.random = random;
    this.numbers = numbers;
  }

  one(): void {
    const { random } = this;
    switch (random.below(8)) {
      case 0:
        this.anyConfig();
        return;
      case 1:
        this.anyRegister();
        return;
      case 2:
        this.anyMemory();
        return;
      case 3:
        this.setUp();
        return;
      default:
        this.ring();
    }
  }

  /** Any value, but for addresses in the guard. */
  private value(): number {
    const { random } = this;
    const value = random.pick([random.below(2 ** 32), random.below(16), 1 << random.below(32), 0, 0xffffffff]) >>> 0;
    return value >>> 16 === 0x8000 ? value ^ 0x4000_0000 : value;
  }

  /** Addresses in RAM above the guard, at its end, and far away; none from which a run reaches the guard. */
  private address(): number {
    const { random } = this;
    const below = 0x1000_0000;
    const inside = RAM_BASE + GUARD_BYTES + random.below(HOSTILE_BYTES);
    const end = RAM_BASE + GUARD_BYTES + HOSTILE_BYTES;
    return random.pick([
      inside,
      inside & ~15,
      inside & ~15,
      end - 1 - random.below(64),
      below,
      0,
      2 ** 62,
      2 ** 53 - 1,
    ]);
  }

  private lenBytes(): number {
    const { random } = this;
    return random.pick([
      random.below(64),
      16,
      512,
      1,
      random.below(8192),
      0,
      0x4000_0000,
      0xffffffff,
      16 * random.below(2000),
    ]);
  }

  private anyConfig(): void {
    const { random, board } = this;
    const at =
      PCI_ECAM_BASE +
      (random.pick([...this.numbers, random.below(32)]) << 15) +
      random.below(random.pick([64, 256, 4096, 32768]));
    if (random.below(2) === 0) board.bus.read(at, random.pick([1, 2, 4, 8]));
    else board.bus.write(at, random.pick([1, 2, 4, 8]), this.value());
  }

  private driver(): TestDriver {
    return new TestDriver(this.board, this.random.pick(this.numbers));
  }

  private anyRegister(): void {
    const { random, board } = this;
    const at =
      this.driver().bar + random.pick([random.below(0x40), random.below(0x4000), 0x3000 + 4 * random.below(4), 0x1000]);
    if (random.below(2) === 0) board.bus.read(at, random.pick([1, 2, 4, 8]));
    else board.bus.write(at, random.pick([1, 2, 4, 8]), this.value());
  }

  private anyMemory(): void {
    const { random, board } = this;
    const at = GUARD_BYTES + random.below(HOSTILE_BYTES - 4096);
    for (let i = random.below(256); i >= 0; i--) board.memory.bytes[at + i] = random.below(256);
  }

  /** A device set up as it should be, mostly. */
  private setUp(): void {
    const { random } = this;
    const driver = this.driver();
    driver.negotiate(random.pick([driver.features, 0n, 3n << 28n, 1n << 29n]) & ((1n << 62n) - 1n));
    const nr = driver.read(0x12, 2);
    for (let index = 0; index < Math.min(nr, 4); index++) {
      if (random.below(8) === 0) continue;
      const size = random.below(40) === 0 ? 3 : random.pick([8, 16, 64]);
      const at = GUARD_BYTES + 0x1000 * (driver.number * 4 + index);
      driver.queue(index, RAM_BASE + at, size);
      this.sizes.set(at, size);
      if (random.below(8) === 0) {
        driver.write(0x20 + 8 * random.below(3), 4, this.address() >>> 0);
      }
    }
    driver.start();
  }

  /** Descriptors, an available ring and a notification for a queue where `setUp` may have put one. */
  private ring(): void {
    const { random, board } = this;
    const driver = this.driver();
    const index = random.below(2);
    const queue = GUARD_BYTES + 0x1000 * (driver.number * 4 + index);
    const size = random.below(16) === 0 ? 8 : (this.sizes.get(queue) ?? 8);
    const { view } = board.memory;
    if (random.below(2) === 0) this.request(queue, driver.number === FS_NUMBER);
    for (let i = random.below(8) - 4; i >= 0; i--) {
      const at = queue + 16 * random.below(size);
      view.setBigUint64(at, BigInt(this.address()), true);
      view.setUint32(at + 8, this.lenBytes(), true);
      view.setUint16(at + 12, random.pick([0, 1, 2, 3, 3, 4, 5, random.below(65536)]), true);
      view.setUint16(at + 14, random.pick([random.below(size), random.below(size), random.below(65536)]), true);
    }
    const avail = queue + 16 * size;
    view.setUint16(avail, random.below(3), true);
    for (let i = 0; i < 4; i++)
      view.setUint16(
        avail + 4 + 2 * random.below(size),
        random.pick([0, 0, 0, random.below(size), random.below(40) === 0 ? random.below(65536) : 0]),
        true,
      );
    const idx = view.getUint16(avail + 2, true);
    view.setUint16(avail + 2, random.pick([idx + 1, idx + 1, idx + 2, idx + size, random.below(65536)]) & 0xffff, true);
    driver.notify(index);
  }

  /** A request as a disk wants it, or a file system, in descriptors 0 to 2, direct or indirect; the sizes are any. */
  private request(queue: number, forFs: boolean): void {
    const { random } = this;
    const { view } = this.board.memory;
    const place = () => GUARD_BYTES + (random.below(HOSTILE_BYTES - 0x4000) & ~15);
    const [header, table] = [place(), random.below(2) === 0 ? place() : queue];
    if (forFs) this.fuse(header);
    else view.setUint32(header, random.pick([0, 1, 4, 8, 11, 13, random.below(64)]), true);
    if (!forFs) view.setUint32(header + 8, random.pick([0, random.below(600), 0xffffffff]), true);
    if (!forFs) view.setUint32(header + 12, random.pick([0, 0, random.below(65536)]), true);
    const data = random.pick([512, 16, 20, 4096, 16 * random.below(40), random.below(0x4000)]);
    const write = (at: number, gpa: number, lenBytes: number, flags: number, next: number) => {
      view.setBigUint64(at, BigInt(RAM_BASE + gpa), true);
      view.setUint32(at + 8, lenBytes, true);
      view.setUint16(at + 12, flags, true);
      view.setUint16(at + 14, next, true);
    };
    write(table, header, forFs ? view.getUint32(header, true) : 16, 1, 1);
    write(table + 16, place(), data, forFs ? 3 : random.pick([1, 3]), 2);
    write(table + 32, place(), 1, 2, 0);
    if (table !== queue) write(queue, table, 48, 4, 0);
  }

  /** The shared folder as a driver has it that knows what it does, which is then asked for anything. */
  async mounted(): Promise<void> {
    const { board } = this;
    const driver = new TestDriver(board, FS_NUMBER);
    driver.status = 0;
    await until(() => driver.status === 0, 'the reset did not end');
    driver.negotiate(0n);
    driver.queue(0, RAM_BASE + GUARD_BYTES);
    const queue = driver.queue(1, RAM_BASE + GUARD_BYTES + 0x1000);
    driver.start();
    const [header, answer] = [GUARD_BYTES + 0x2000, GUARD_BYTES + 0x3000];
    const isBroken = () => (driver.status & VIRTIO_CONFIG_S_NEEDS_RESET) !== 0;
    this.fuse(header, INIT);
    for (let i = 0; i <= NR_REQUESTS && !isBroken(); i++) {
      const lenBytes = board.memory.view.getUint32(header, true);
      const reply = { gpa: RAM_BASE + answer, lenBytes: 4096, write: true };
      queue.offer(queue.chain([{ gpa: RAM_BASE + header, lenBytes }, reply]));
      queue.notify();
      await until(() => queue.take().length === 1 || isBroken());
      this.fuse(header);
    }
  }

  /** A request of FUSE: struct fuse_in_header, and a body of numbers and names. */
  private fuse(at: number, asked?: typeof INIT): void {
    const { random } = this;
    const { bytes, view } = this.board.memory;
    const opcode = asked ?? random.pick([INIT, INIT, 1, 9, 9, 35, random.below(50), random.below(50)]);
    const body = opcode === INIT ? 64 : 32 + random.below(200);
    view.setUint32(at, asked === undefined && random.below(8) === 0 ? random.below(4096) : 40 + body, true);
    view.setUint32(at + 4, opcode, true);
    view.setBigUint64(at + 8, BigInt(random.below(1000)), true);
    view.setBigUint64(at + 16, BigInt(random.pick([1, 1, 1, 2, random.below(20), random.below(2 ** 32)])), true);
    view.setUint32(at + 36, 0, true);
    for (let i = 0; i < body; i++) bytes[at + 40 + i] = random.pick([0, 0, 7, random.below(256)]);
    if (opcode === INIT) {
      view.setUint32(at + 40, 7, true);
      view.setUint32(at + 44, 38, true);
      return;
    }
    const name = random.pick(['a\0', 'b\0', '..\0', '../outside\0', '/etc/passwd\0', '\0', 'a\0b\0', 'a']);
    const names = at + 40 + random.pick([0, 8, 8, 16]);
    for (let i = 0; i < name.length; i++) bytes[names + i] = name.charCodeAt(i);
  }
}
