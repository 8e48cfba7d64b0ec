/**
 * Errors of write-back, each reported once to each opener (Linux: errseq.h). The sequence belongs to an address space; each opener keeps a
 * sample of it. An error moves the sequence, and whoever finds that it has moved since his sample reports the error and samples anew.
 *
 * An error that nobody has seen yet is also reported to the next one who opens the file: it must not be lost because the opener at the time
 * closed without asking.
 *
 *   bits 0..11  errno of the last error
 *   bit 12      somebody has seen it
 *   bits 13..31 a count that moves when an error comes after the last was seen
 */
const ERRNO_MASK = 0xfff;
const SEEN = 0x1000;
const COUNT = 0x2000;

export class ErrSeq {
  private value = 0;

  /** A write was lost. */
  set(errno: number): void {
    const old = this.value;
    const moved = (old & ~(ERRNO_MASK | SEEN)) | errno;
    this.value = ((old & SEEN) !== 0 ? moved + COUNT : moved) >>> 0;
  }

  /** For one who opens: an error that nobody has seen counts as one that comes later. */
  sample(): number {
    return (this.value & SEEN) !== 0 ? this.value : 0;
  }

  /** Errno of the error since the sample, or 0; the caller keeps `current` as his new sample. */
  check(since: number): number {
    return this.value === since ? 0 : this.value & ERRNO_MASK;
  }

  /** The sample of one who has just been told. */
  advance(since: number): number {
    if (this.value !== since) this.value = (this.value | SEEN) >>> 0;
    return this.value;
  }
}
