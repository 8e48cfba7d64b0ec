import {
  MmioBus,
  PCI_ECAM_BASE,
  PCI_ECAM_BYTES,
  PCI_WINDOW_BASE,
  PCI_WINDOW_BYTES,
  PciHost,
  RAM_BASE,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  type VirtioDevice,
  VirtioPci,
} from '../../../src/machine/index.js';
import { FlatMemory } from './flatmemory.js';

/**
 * The driver's side of virtio over PCI, as small as it can be: it finds the function by ECAM, sizes and places its BAR, follows the capabilities,
 * negotiates, and runs split rings in the guest's RAM. All that it knows of the device it reads through the bus.
 */

export class TestBoard {
  readonly memory: FlatMemory;
  readonly bus = new MmioBus();
  readonly lines = new Map<number, boolean>();
  readonly pci: PciHost;
  readonly reasons: string[] = [];

  constructor(ramBytes = 1 << 20) {
    this.memory = new FlatMemory(ramBytes);
    this.pci = new PciHost({ windowBase: PCI_WINDOW_BASE, setIrq: (device, on) => this.lines.set(device, on) });
    this.bus.add(PCI_ECAM_BASE, PCI_ECAM_BYTES, this.pci.ecam);
    this.bus.add(PCI_WINDOW_BASE, PCI_WINDOW_BYTES, this.pci.window);
  }

  /** Returns the device's number on the bus. */
  plug(device: VirtioDevice): { pci: VirtioPci; number: number } {
    const pci = new VirtioPci({
      device,
      memory: this.memory,
      defer: (fn) => setImmediate(fn),
      onBroken: (reason) => this.reasons.push(`${device.name}: ${reason}`),
    });
    return { pci, number: this.pci.plug(pci.fn) };
  }

  config(number: number, offset: number, lenBytes: number): number {
    return this.bus.read(PCI_ECAM_BASE + (number << 15) + offset, lenBytes);
  }

  setConfig(number: number, offset: number, lenBytes: number, value: number): void {
    this.bus.write(PCI_ECAM_BASE + (number << 15) + offset, lenBytes, value);
  }
}

export interface Buffer {
  readonly gpa: number;
  readonly lenBytes: number;
  readonly write?: boolean;
}

export class TestDriver {
  readonly board: TestBoard;
  readonly number: number;
  readonly bar: number;
  private readonly common: number;
  private readonly notifyAt: number;
  private readonly isr: number;
  readonly deviceConfig: number;

  /** Places the BAR at `at` and switches memory space on. */
  constructor(board: TestBoard, number: number, at = PCI_WINDOW_BASE + number * 0x1_0000) {
    this.board = board;
    this.number = number;
    this.bar = at;
    board.setConfig(number, 0x10, 4, at);
    board.setConfig(number, 0x04, 2, 0x0006);
    const found = this.capabilities();
    this.common = found.get(1)!;
    this.notifyAt = found.get(2)!;
    this.isr = found.get(3)!;
    this.deviceConfig = found.get(4) ?? 0;
  }

  /** Guest-physical addresses of the structures, by type. */
  private capabilities(): Map<number, number> {
    const found = new Map<number, number>();
    const config = (offset: number, lenBytes: number) => this.board.config(this.number, offset, lenBytes);
    for (let at = config(0x34, 1); at !== 0; at = config(at + 1, 1))
      if (config(at, 1) === 0x09) found.set(config(at + 3, 1), this.bar + config(at + 8, 4));
    return found;
  }

  read(offset: number, lenBytes: number): number {
    return this.board.bus.read(this.common + offset, lenBytes);
  }

  write(offset: number, lenBytes: number, value: number): void {
    this.board.bus.write(this.common + offset, lenBytes, value);
  }

  get status(): number {
    return this.read(0x14, 1);
  }

  set status(value: number) {
    this.write(0x14, 1, value);
  }

  get features(): bigint {
    return this.half(0) | (this.half(1) << 32n);
  }

  private half(select: number): bigint {
    this.write(0x00, 4, select);
    return BigInt(this.read(0x04, 4));
  }

  /** To FEATURES_OK; whether the device agreed. `wanted` is added to VERSION_1. */
  negotiate(wanted: bigint): boolean {
    this.status = 0;
    this.status = 3;
    const features = wanted | (1n << 32n);
    for (const select of [0, 1]) {
      this.write(0x08, 4, select);
      this.write(0x0c, 4, Number((features >> BigInt(32 * select)) & 0xffff_ffffn));
    }
    this.status = 0x0b;
    return (this.status & 8) !== 0;
  }

  /** Sets a queue up with its rings at `gpa`. */
  queue(index: number, gpa: number, size = 8): DriverQueue {
    const queue = new DriverQueue(this, index, gpa, size);
    this.write(0x16, 2, index);
    this.write(0x18, 2, size);
    for (const [offset, address] of [
      [0x20, queue.desc],
      [0x28, queue.avail],
      [0x30, queue.used],
    ] as const) {
      this.write(offset, 4, address);
      this.write(offset + 4, 4, 0);
    }
    this.write(0x1c, 2, 1);
    return queue;
  }

  start(): void {
    this.status = 0x0f;
  }

  notify(index: number): void {
    this.board.bus.write(this.notifyAt + 4 * index, 2, index);
  }

  readIsr(): number {
    return this.board.bus.read(this.isr, 1);
  }

  get line(): boolean {
    return this.board.lines.get(this.number) ?? false;
  }
}

export class DriverQueue {
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly size: number;
  private readonly driver: TestDriver;
  private readonly index: number;
  private availIdx = 0;
  private usedIdx = 0;
  private nextDesc = 0;

  constructor(driver: TestDriver, index: number, gpa: number, size: number) {
    this.driver = driver;
    this.index = index;
    this.size = size;
    this.desc = gpa;
    this.avail = gpa + 16 * size;
    this.used = (this.avail + 6 + 2 * size + 3) & ~3;
    if (this.used < 0) this.used += 2 ** 32;
    driver.board.memory.bytes.fill(0, gpa - RAM_BASE, this.used - RAM_BASE + 6 + 8 * size);
  }

  private get view(): DataView {
    return this.driver.board.memory.view;
  }

  setDescriptor(at: number, gpa: number, lenBytes: number, flags: number, next: number): void {
    const { view } = this;
    view.setBigUint64(at - RAM_BASE, BigInt(gpa), true);
    view.setUint32(at - RAM_BASE + 8, lenBytes, true);
    view.setUint16(at - RAM_BASE + 12, flags, true);
    view.setUint16(at - RAM_BASE + 14, next, true);
  }

  /** Writes a chain into the next free descriptors, round and round; its head. */
  chain(buffers: readonly Buffer[]): number {
    const heads = buffers.map(() => this.nextDesc++ % this.size);
    buffers.forEach((buffer, i) => {
      this.setDescriptor(this.desc + 16 * heads[i]!, ...this.fields(buffer, heads[i + 1]));
    });
    return heads[0]!;
  }

  /** The same by one descriptor, with the table at `table`. */
  indirect(buffers: readonly Buffer[], table: number): number {
    buffers.forEach((buffer, i) => {
      const next = i + 1 < buffers.length ? i + 1 : undefined;
      this.setDescriptor(table + 16 * i, ...this.fields(buffer, next));
    });
    const head = this.nextDesc++ % this.size;
    this.setDescriptor(this.desc + 16 * head, table, 16 * buffers.length, VIRTQ_DESC_F_INDIRECT, 0);
    return head;
  }

  private fields({ gpa, lenBytes, write }: Buffer, next: number | undefined): [number, number, number, number] {
    const flags = (write ? VIRTQ_DESC_F_WRITE : 0) | (next === undefined ? 0 : VIRTQ_DESC_F_NEXT);
    return [gpa, lenBytes, flags, next ?? 0];
  }

  /** Makes a chain available, without a notification. */
  offer(head: number): void {
    this.view.setUint16(this.avail - RAM_BASE + 4 + 2 * (this.availIdx % this.size), head, true);
    this.setAvailIdx(this.availIdx + 1);
  }

  setAvailIdx(idx: number): void {
    this.availIdx = idx & 0xffff;
    this.view.setUint16(this.avail - RAM_BASE + 2, this.availIdx, true);
  }

  setAvailFlags(flags: number): void {
    this.view.setUint16(this.avail - RAM_BASE, flags, true);
  }

  /** With VIRTIO_F_EVENT_IDX: an interrupt when the used index passes this one. */
  setUsedEvent(idx: number): void {
    this.view.setUint16(this.avail - RAM_BASE + 4 + 2 * this.size, idx & 0xffff, true);
  }

  /** With VIRTIO_F_EVENT_IDX: where the device wants a notification. */
  get availEvent(): number {
    return this.view.getUint16(this.used - RAM_BASE + 4 + 8 * this.size, true);
  }

  notify(): void {
    this.driver.notify(this.index);
  }

  /** What the device gave back since the last call. */
  take(): { head: number; lenBytes: number }[] {
    const taken: { head: number; lenBytes: number }[] = [];
    const end = this.view.getUint16(this.used - RAM_BASE + 2, true);
    for (; this.usedIdx !== end; this.usedIdx = (this.usedIdx + 1) & 0xffff) {
      const at = this.used - RAM_BASE + 4 + 8 * (this.usedIdx % this.size);
      taken.push({ head: this.view.getUint32(at, true), lenBytes: this.view.getUint32(at + 4, true) });
    }
    return taken;
  }
}

/** Until `done`, a turn of the event loop at a time; throws after many. */
export async function until(done: () => boolean, what = 'the device did not answer'): Promise<void> {
  for (let turn = 0; !done(); turn++) {
    if (turn > 20_000) throw new Error(what);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
