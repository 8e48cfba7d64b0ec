/**
 * Bytes on their way to a guest: from the first that is not acknowledged to the last that the host gave. They stay in the arrays they
 * came in; nothing is copied but into segments.
 */

export class SendBuffer {
  lenBytes = 0;
  private readonly chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that are acknowledged. */
  private done = 0;

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.chunks.push(bytes);
    this.lenBytes += bytes.length;
  }

  /** Gives up the first `lenBytes`. */
  drop(lenBytes: number): void {
    this.lenBytes -= lenBytes;
    this.done += lenBytes;
    while (this.chunks.length > 0 && this.done >= this.chunks[0].length) this.done -= this.chunks.shift()!.length;
  }

  /** Copies [offset, offset + lenBytes) to `dst` at `at`; all of it must be there. */
  copy(offset: number, lenBytes: number, dst: Uint8Array, at: number): void {
    let skip = offset + this.done;
    for (const chunk of this.chunks) {
      if (lenBytes === 0) return;
      if (skip >= chunk.length) {
        skip -= chunk.length;
        continue;
      }
      const take = Math.min(chunk.length - skip, lenBytes);
      dst.set(chunk.subarray(skip, skip + take), at);
      at += take;
      lenBytes -= take;
      skip = 0;
    }
  }
}
