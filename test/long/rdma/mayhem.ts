import {
  MADV_PAGEOUT,
  type Mm,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../../../src/mm/index.js';
import { HALF_BYTES } from './layout.js';
import { bytesOf, Random } from './random.js';

/**
 * What an owner does to memory that a NIC serves: writes its own half, forks, has the child write (copies on both sides), takes rights away and gives them back,
 * moves pages elsewhere and back, migrates frames, drives pages out. Never are pages where the NIC looks for them gone when the thread that answers its faults is free.
 */
export class Mayhem {
  readonly counts = { forks: 0, copies: 0, moves: 0, migrated: 0 };
  mismatches = 0;
  pinnedFrames = 0;
  private readonly mm: Mm;
  /** The owner's half, and all of it. */
  private readonly va: number;
  private readonly regionVa: number;
  private readonly random: Random;
  private readonly model = new Uint8Array(HALF_BYTES);
  private readonly elsewhere: number;
  private children: Mm[] = [];

  constructor(mm: Mm, va: number, regionVa: number, seed: number) {
    this.mm = mm;
    this.va = va;
    this.regionVa = regionVa;
    this.random = new Random(seed ^ 0x9e3779b9);
    this.elsewhere = va + 2 ** 30;
  }

  async run(isDone: () => boolean): Promise<void> {
    const acts = [
      this.write,
      this.verify,
      this.fork,
      this.childWrites,
      this.rights,
      this.move,
      this.migrate,
      this.pageout,
    ];
    while (!isDone()) {
      await acts[this.random.below(acts.length)]!.call(this);
      this.pinnedFrames = Math.max(this.pinnedFrames, this.mm.host.stats().pinnedFrames);
      await new Promise((resolve) => setTimeout(resolve, this.random.below(3)));
    }
    for (const child of this.children) child.exit();
    for (let at = 0; at < HALF_BYTES; at += 2 ** 18) await this.compare(this.mm, at, 2 ** 18, this.model);
  }

  private piece(most: number): { at: number; length: number } {
    const length = this.random.size(most);
    return { at: this.random.below(HALF_BYTES - length), length };
  }

  private async write(): Promise<void> {
    const { at, length } = this.piece(100_000);
    const bytes = bytesOf(this.random.below(2 ** 30), length);
    this.model.set(bytes, at);
    await this.mm.write(this.va + at, bytes);
  }

  private async verify(): Promise<void> {
    const { at, length } = this.piece(100_000);
    await this.compare(this.mm, at, length, this.model);
  }

  private async compare(mm: Mm, at: number, length: number, model: Uint8Array): Promise<void> {
    const seen = new Uint8Array(length);
    await mm.read(this.va + at, seen);
    if (Buffer.compare(seen, model.subarray(at, at + length)) !== 0) this.mismatches++;
  }

  /** A child sees the owner's half as it was. */
  private async fork(): Promise<void> {
    while (this.children.length >= 2) this.children.shift()!.exit();
    const child = this.mm.fork();
    this.children.push(child);
    this.counts.forks++;
    const { at, length } = this.piece(50_000);
    await this.compare(child, at, length, this.model.slice());
  }

  /** What a child writes is its own. */
  private async childWrites(): Promise<void> {
    const child = this.children[this.random.below(this.children.length)];
    if (child === undefined) return;
    const { at, length } = this.piece(50_000);
    const va = (this.random.below(2) === 0 ? this.va : this.regionVa) + at;
    await child.write(va, new Uint8Array(length).fill(0xee));
    this.counts.copies++;
  }

  /** A run of pages of the whole region. */
  private run_(): { va: number; lenBytes: number } {
    const nrPages = this.random.size(256);
    const page = this.random.below((2 * HALF_BYTES) / PAGE_SIZE - nrPages);
    return { va: this.regionVa + page * PAGE_SIZE, lenBytes: nrPages * PAGE_SIZE };
  }

  private rights(): void {
    const { va, lenBytes } = this.run_();
    this.mm.mprotect(va, lenBytes, PROT_READ);
    this.mm.mprotect(va, lenBytes, PROT_READ | PROT_WRITE);
  }

  private move(): void {
    const { va, lenBytes } = this.run_();
    const to = this.mm.mremap(va, lenBytes, lenBytes, MREMAP_MAYMOVE | MREMAP_FIXED, this.elsewhere);
    this.mm.mremap(to, lenBytes, lenBytes, MREMAP_MAYMOVE | MREMAP_FIXED, va);
    this.counts.moves++;
  }

  private migrate(): void {
    this.counts.migrated += this.mm.host.compact().nrMigrated;
  }

  private pageout(): void {
    const { va, lenBytes } = this.run_();
    this.mm.madvise(va, lenBytes, MADV_PAGEOUT);
  }
}
