import fc from 'fast-check';
import { expect, it } from 'vitest';
import { KernelError } from '../../../src/base/index.js';
import { type BlockBackend, MemoryDisk, OverlayDisk, RAM_BASE, VirtioBlk } from '../../../src/machine/index.js';
import { openScratchFile } from '../../../src/node/index.js';
import { type Buffer, type DriverQueue, TestBoard, TestDriver, until } from './driver.js';

/** virtio-blk from the driver's side, over memory, files and overlays. */

const HEADER = RAM_BASE + 0x4000;
const STATUS = RAM_BASE + 0x4100;
const DATA = RAM_BASE + 0x10000;
const [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES] = [0, 1, 4, 8, 11, 13];
const [OK, IOERR, UNSUPP] = [0, 1, 2];

class Disk {
  readonly board = new TestBoard(4 << 20);
  readonly errors: string[] = [];
  readonly device: VirtioBlk;
  readonly driver: TestDriver;
  readonly queue: DriverQueue;

  constructor(backend: BlockBackend, readOnly = false) {
    this.device = new VirtioBlk({
      backend,
      readOnly,
      serial: 'serial-7',
      onError: ({ message }) => this.errors.push(message),
    });
    this.driver = new TestDriver(this.board, this.board.plug(this.device).number);
    this.driver.negotiate(this.device.features);
    this.queue = this.driver.queue(0, RAM_BASE, 64);
    this.driver.start();
  }

  /** Offers a request and notifies; `slot` keeps several apart. */
  submit(type: number, sector: number, data: readonly Buffer[], slot = 0): number {
    const { view } = this.board.memory;
    const at = HEADER - RAM_BASE + 16 * slot;
    view.setUint32(at, type, true);
    view.setUint32(at + 4, 0, true);
    view.setBigUint64(at + 8, BigInt(sector), true);
    view.setUint8(STATUS - RAM_BASE + slot, 0xff);
    const head = this.queue.chain([
      { gpa: HEADER + 16 * slot, lenBytes: 16 },
      ...data,
      { gpa: STATUS + slot, lenBytes: 1, write: true },
    ]);
    this.queue.offer(head);
    this.queue.notify();
    return head;
  }

  status(slot = 0): number {
    return this.board.memory.bytes[STATUS - RAM_BASE + slot]!;
  }

  /** Carries one request out; its status. */
  async request(type: number, sector: number, data: readonly Buffer[] = []): Promise<number> {
    this.submit(type, sector, data);
    await until(() => this.queue.take().length === 1);
    return this.status();
  }

  async read(sector: number, lenBytes: number): Promise<Uint8Array> {
    expect(await this.request(IN, sector, [{ gpa: DATA, lenBytes, write: true }])).toBe(OK);
    return this.board.memory.bytes.slice(DATA - RAM_BASE, DATA - RAM_BASE + lenBytes);
  }

  write(sector: number, bytes: Uint8Array): Promise<number> {
    this.board.memory.bytes.set(bytes, DATA - RAM_BASE);
    return this.request(OUT, sector, [{ gpa: DATA, lenBytes: bytes.length }]);
  }

  /** Discard or write zeroes, of these [sector, number] segments. */
  zero(type: number, segments: readonly (readonly [number, number])[]): Promise<number> {
    const { view } = this.board.memory;
    segments.forEach(([sector, nr], i) => {
      view.setBigUint64(DATA - RAM_BASE + 16 * i, BigInt(sector), true);
      view.setUint32(DATA - RAM_BASE + 16 * i + 8, nr, true);
      view.setUint32(DATA - RAM_BASE + 16 * i + 12, 0, true);
    });
    return this.request(type, 0, [{ gpa: DATA, lenBytes: 16 * segments.length }]);
  }
}

function pattern(lenBytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: lenBytes }, (_, i) => (i * 13 + (i >>> 9) + seed) & 0xff);
}

it('reads what was written, in pieces and in one; tells size, serial and what it can', async () => {
  const disk = new Disk(new MemoryDisk(1 << 20));
  const config = (offset: number) => disk.board.bus.read(disk.driver.deviceConfig + offset, 4);
  expect([config(0), config(4), config(12), config(20)]).toEqual([2048, 0, 254, 512]);
  const bytes = pattern(700 * 512, 1);
  expect(await disk.write(3, bytes)).toBe(OK);
  expect(Buffer.compare(await disk.read(3, bytes.length), bytes)).toBe(0);
  expect(await disk.read(4, 512)).toEqual(bytes.slice(512, 1024));
  expect(await disk.request(FLUSH, 0)).toBe(OK);
  expect(await disk.request(GET_ID, 0, [{ gpa: DATA, lenBytes: 20, write: true }])).toBe(OK);
  expect(Buffer.from(disk.board.memory.bytes.subarray(DATA - RAM_BASE, DATA - RAM_BASE + 9)).toString()).toBe(
    'serial-7\0',
  );
  expect([disk.errors, disk.board.reasons]).toEqual([[], []]);
});

it('splits a request at any byte of any descriptor', async () => {
  const disk = new Disk(new MemoryDisk(1 << 16));
  const bytes = pattern(1024, 2);
  disk.board.memory.bytes.set(bytes, DATA - RAM_BASE);
  expect(
    await disk.request(
      OUT,
      1,
      [1, 500, 11, 512].map((lenBytes, i, all) => ({ gpa: DATA + sum(all.slice(0, i)), lenBytes })),
    ),
  ).toBe(OK);
  expect(await disk.read(1, 1024)).toEqual(bytes);
});

const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0);

it.each([
  ['a read beyond the end', IN, 127, 1024],
  ['a write beyond the end', OUT, 128, 512],
  ['a read far beyond', IN, 2 ** 52, 512],
  ['half a sector', OUT, 0, 256],
])('answers %s with an I/O error', async (_what, type, sector, lenBytes) => {
  const disk = new Disk(new MemoryDisk(1 << 16));
  expect(await disk.request(type, sector, [{ gpa: DATA, lenBytes, write: type === IN }])).toBe(IOERR);
  expect(disk.board.reasons).toEqual([]);
});

it('does not know other requests', async () => {
  const disk = new Disk(new MemoryDisk(1 << 16));
  expect([await disk.request(2, 0), await disk.request(0xdead, 0)]).toEqual([UNSUPP, UNSUPP]);
});

it('writes nothing to a read-only disk, and says that it is one', async () => {
  const backend = new MemoryDisk(1 << 16);
  await backend.write(0, [pattern(512, 3)]);
  const disk = new Disk(backend, true);
  expect((disk.driver.features >> 5n) & 1n).toBe(1n);
  expect([await disk.write(0, pattern(512, 4)), await disk.zero(WRITE_ZEROES, [[0, 1]])]).toEqual([IOERR, IOERR]);
  expect(await disk.request(FLUSH, 0)).toBe(OK);
  expect(await disk.read(0, 512)).toEqual(pattern(512, 3));
});

it('makes zeros, and gives the space back', async () => {
  const backend = new MemoryDisk(1 << 20);
  const disk = new Disk(backend);
  await disk.write(0, pattern(64 * 512, 5));
  expect(backend.nrBlocks).toBe(8);
  expect(
    await disk.zero(DISCARD, [
      [8, 16],
      [40, 8],
    ]),
  ).toBe(OK);
  expect(backend.nrBlocks).toBe(5);
  expect(await disk.zero(WRITE_ZEROES, [[1, 2]])).toBe(OK);
  const want = pattern(64 * 512, 5);
  for (const [first, nr] of [
    [8, 16],
    [40, 8],
    [1, 2],
  ] as const)
    want.fill(0, first * 512, (first + nr) * 512);
  expect(Buffer.compare(await disk.read(0, 64 * 512), want)).toBe(0);
  // One segment that is wrong, and nothing is done.
  expect(
    await disk.zero(WRITE_ZEROES, [
      [60, 1],
      [2047, 2],
    ]),
  ).toBe(IOERR);
  expect(await disk.zero(WRITE_ZEROES, [[0, 2 ** 22 + 1]])).toBe(IOERR);
  expect(await disk.read(60, 512)).toEqual(want.slice(60 * 512, 61 * 512));
});

/** A backend whose calls end when they are let, the last one first. */
class SlowDisk extends MemoryDisk {
  readonly waiting: (() => void)[] = [];

  override async read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    await new Promise<void>((resolve) => this.waiting.push(resolve));
    return super.read(offset, buffers);
  }
}

it('has 16 requests under way, ends them in any order, and then takes the next', async () => {
  const backend = new SlowDisk(1 << 20);
  const disk = new Disk(backend);
  const heads = Array.from({ length: 20 }, (_, i) =>
    disk.submit(IN, i, [{ gpa: DATA + 512 * i, lenBytes: 512, write: true }], i),
  );
  await until(() => backend.waiting.length === 16);
  const order: number[] = [];
  while (order.length < 20) {
    backend.waiting.pop()?.();
    await new Promise((resolve) => setImmediate(resolve));
    order.push(...disk.queue.take().map(({ head }) => head));
  }
  expect(order.slice(0, 1)).toEqual([heads[15]]);
  expect([...order].sort((a, b) => a - b)).toEqual([...heads].sort((a, b) => a - b));
});

it('may be reset while the backend is at work: the old request moves nothing, the next one works', async () => {
  const backend = new SlowDisk(1 << 20);
  const disk = new Disk(backend);
  disk.submit(IN, 0, [{ gpa: DATA, lenBytes: 512, write: true }]);
  await until(() => backend.waiting.length === 1);
  disk.driver.negotiate(0n);
  const queue = disk.driver.queue(0, RAM_BASE, 64);
  disk.driver.start();
  const { writtenBytes } = disk.board.memory;
  backend.waiting.pop()!();
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect([disk.board.memory.writtenBytes, queue.take()]).toEqual([writtenBytes, []]);
  expect(disk.board.reasons).toEqual([]);
});

it('answers what the backend refuses with an I/O error, and tells the owner', async () => {
  const full = new (class extends MemoryDisk {
    override async write(): Promise<number> {
      throw new KernelError('ENOSPC', 'write', 'the disk is full');
    }
    override async read(): Promise<number> {
      return 100;
    }
  })(1 << 16);
  const disk = new Disk(full);
  expect(await disk.write(0, pattern(512, 1))).toBe(IOERR);
  expect(await disk.request(IN, 0, [{ gpa: DATA, lenBytes: 512, write: true }])).toBe(IOERR);
  expect(disk.errors).toEqual([
    'ENOSPC: write: the disk is full',
    expect.stringMatching(/EIO: disk: memory is shorter/),
  ]);
});

it.each([
  ['no room for a status', (disk: Disk) => disk.queue.chain([{ gpa: HEADER, lenBytes: 16 }])],
  [
    'half a header',
    (disk: Disk) =>
      disk.queue.chain([
        { gpa: HEADER, lenBytes: 15 },
        { gpa: STATUS, lenBytes: 1, write: true },
      ]),
  ],
])('needs a reset for a request with %s', async (_what, chain) => {
  const disk = new Disk(new MemoryDisk(1 << 16));
  disk.queue.offer(chain(disk));
  disk.queue.notify();
  await until(() => (disk.driver.status & 0x40) !== 0);
  expect(disk.board.reasons).toEqual([expect.stringMatching(/virtio-blk: queue 0: EINVAL.*header of 16 bytes/)]);
});

it('refuses a disk of less than a sector', () => {
  expect(() => new VirtioBlk({ backend: new MemoryDisk(511) })).toThrow(/EINVAL: disk: memory has 511 bytes/);
});

it.each([
  ['memory', () => new MemoryDisk(64 * 512)],
  ['a file', () => openScratchFile(64 * 512)],
])('an overlay in %s reads as one disk that was written, and leaves the base alone', async (_what, createUpper) => {
  const op = fc.record({
    kind: fc.constantFrom('read', 'write', 'zero'),
    sector: fc.integer({ min: 0, max: 60 }),
    nr: fc.integer({ min: 1, max: 12 }),
    seed: fc.nat(255),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(op, { maxLength: 30 }), async (ops) => {
      const base = new MemoryDisk(64 * 512);
      const image = pattern(64 * 512, 9);
      await base.write(0, [image]);
      const overlay = new OverlayDisk(base, createUpper());
      const model = image.slice();
      for (const { kind, sector, nr, seed } of ops) {
        const lenBytes = Math.min(nr, 64 - sector) * 512;
        const part = model.subarray(sector * 512, sector * 512 + lenBytes);
        if (kind === 'zero') {
          await overlay.punchHole(sector * 512, lenBytes);
          part.fill(0);
        } else if (kind === 'write') {
          part.set(pattern(lenBytes, seed));
          expect(await overlay.write(sector * 512, [pattern(lenBytes, seed)])).toBe(lenBytes);
        } else {
          const [head, rest] = [new Uint8Array(512), new Uint8Array(lenBytes - 512)];
          expect(await overlay.read(sector * 512, [head, rest])).toBe(lenBytes);
          expect(Buffer.compare(Buffer.concat([head, rest]), part)).toBe(0);
        }
      }
      const whole = new Uint8Array(64 * 512);
      await overlay.read(0, [whole]);
      expect(Buffer.compare(whole, model)).toBe(0);
      await base.read(0, [whole]);
      expect(Buffer.compare(whole, image)).toBe(0);
      await overlay.close();
    }),
    { numRuns: 40 },
  );
});
