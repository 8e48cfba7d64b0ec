import { bug, KernelError } from '../../base/index.js';

/**
 * The arena: first fit over a sorted list of holes. It serves few and long-lived blocks (hart state, TLBs, shadow tables), so
 * the list is short. The blocks' lengths are the callers' to remember.
 */
export class Arena {
  private readonly lenBytes: number;
  private readonly holes: { start: number; end: number }[];

  constructor(start: number, lenBytes: number) {
    this.lenBytes = lenBytes;
    this.holes = [{ start, end: start + lenBytes }];
  }

  alloc(lenBytes: number, align: number): number {
    if (!(lenBytes > 0) || align < 1 || (align & (align - 1)) !== 0) {
      throw new KernelError(
        'EINVAL',
        'arenaAlloc',
        `lenBytes ${lenBytes} must be positive, align ${align} a power of two`,
      );
    }
    for (let i = 0; i < this.holes.length; i++) {
      const hole = this.holes[i]!;
      const addr = Math.ceil(hole.start / align) * align;
      if (addr + lenBytes <= hole.end) {
        this.holes.splice(i, 1, ...[part(hole.start, addr), part(addr + lenBytes, hole.end)].flat());
        return addr;
      }
    }
    const free = this.holes.reduce((sum, hole) => sum + hole.end - hole.start, 0);
    throw new KernelError(
      'ENOMEM',
      'arenaAlloc',
      `${lenBytes} bytes do not fit: ${free} of ${this.lenBytes} are free; raise HostOptions.arenaBytes`,
    );
  }

  free(addr: number, lenBytes: number): void {
    const end = addr + lenBytes;
    let i = this.holes.findIndex((hole) => hole.start >= addr);
    if (i < 0) i = this.holes.length;
    const before = this.holes[i - 1];
    const after = this.holes[i];
    if ((before !== undefined && before.end > addr) || (after !== undefined && after.start < end)) {
      bug('N4', `arena block 0x${addr.toString(16)} of ${lenBytes} bytes freed twice`);
    }
    const start = before?.end === addr ? before.start : addr;
    const stop = after?.start === end ? after.end : end;
    const from = before?.end === addr ? i - 1 : i;
    const to = after?.start === end ? i + 1 : i;
    this.holes.splice(from, to - from, { start, end: stop });
  }
}

function part(start: number, end: number): { start: number; end: number }[] {
  return start < end ? [{ start, end }] : [];
}
