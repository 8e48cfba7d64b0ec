import { KernelError } from '../../base/index.js';
import { PAGE_SIZE, pfnToPa, VA_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import { PROT_READ } from '../vma/vma.js';
import { FAULT_FLAG_WRITE } from './faultcode.js';

/**
 * Reading and writing an mm's memory by address (Linux: access_remote_vm). Each page is looked up when its turn comes and kept
 * by a reference while its bytes are copied; between pages others may run. A transfer that fails half way has moved what lies before;
 * only `processVmRw` says how much that was.
 */

/** Moves `lenBytes` between the bytes at `pa` of the host's memory and offset `at` of the caller's buffer. */
type Copy = (pa: number, at: number, lenBytes: number) => void;

/** From the mm into `dst`. */
export function copyOut({ host }: Mm, dst: Uint8Array): Copy {
  return (pa, at, lenBytes) => dst.set(host.u8.subarray(pa, pa + lenBytes), at);
}

/** From `src` into the mm. */
export function copyIn({ host }: Mm, src: Uint8Array): Copy {
  return (pa, at, lenBytes) => host.u8.set(src.subarray(at, at + lenBytes), pa);
}

export async function accessMm(mm: Mm, va: number, lenBytes: number, flags: number, copy: Copy): Promise<void> {
  checkSpan(va, lenBytes, flags);
  for (let at = 0; at < lenBytes; ) {
    const moved = accessPage(mm, va + at, at, lenBytes - at, flags, copy);
    if (moved === 0) await mm.faultIn(va + at, flags);
    at += moved;
  }
}

export function accessMmSync(mm: Mm, va: number, lenBytes: number, flags: number, copy: Copy): void {
  checkSpan(va, lenBytes, flags);
  for (let at = 0; at < lenBytes; ) {
    const moved = accessPage(mm, va + at, at, lenBytes - at, flags, copy);
    if (moved === 0) mm.faultInSync(va + at, flags);
    at += moved;
  }
}

/** A run of an mm's bytes (Linux: struct iovec). */
export interface Iovec {
  readonly va: number;
  readonly lenBytes: number;
}

/** Linux: UIO_MAXIOV. */
const MAX_IOV = 1024;

/**
 * Reads the runs of `remote`, one after the other, into the buffers of `local`; or with FAULT_FLAG_WRITE the other way (Linux:
 * process_vm_readv, process_vm_writev). Returns the bytes that were moved: fewer than asked for where a page cannot be had after others
 * could. Rejects with what `faultIn` says where the first byte cannot be had; KernelError EINVAL for more than 1024 runs or a bad length.
 */
export async function processVmRw(
  mm: Mm,
  local: readonly Uint8Array[],
  remote: readonly Iovec[],
  flags: number,
): Promise<number> {
  checkIovecs(local, remote, flags);
  let moved = 0;
  try {
    for (const chunk of chunks(local, remote)) {
      const lenBytes = flags === 0 ? readableBytes(mm, chunk) : chunk.lenBytes;
      await accessMm(mm, chunk.va, lenBytes, flags, (pa, at, len) => {
        copyChunk(mm, chunk, flags, pa, at, len);
        moved += len;
      });
      if (lenBytes < chunk.lenBytes) throw notReadable(mm, chunk.va + lenBytes);
    }
  } catch (error) {
    if (moved === 0) throw error;
  }
  return moved;
}

/** The bytes before the first page whose VMA does not say PROT_READ: unlike a CPU, this call does not take PROT_WRITE for it (Linux: check_vma_flags). */
function readableBytes(mm: Mm, { va, lenBytes }: Iovec): number {
  for (let at = va; at < va + lenBytes; ) {
    const vma = mm.findVma(at);
    if (vma === undefined) break;
    if ((vma.prot & PROT_READ) === 0) return at - va;
    at = vma.end;
  }
  return lenBytes;
}

function notReadable(mm: Mm, va: number): KernelError {
  return new KernelError('EFAULT', 'processVmReadv', `address 0x${va.toString(16)} of ${mm.name} must have PROT_READ`);
}

interface Chunk extends Iovec {
  readonly buffer: Uint8Array;
  /** Where in the buffer it begins. */
  readonly at: number;
}

/** The pieces that lie in one buffer and one run. */
function* chunks(local: readonly Uint8Array[], remote: readonly Iovec[]): Generator<Chunk> {
  let k = 0;
  let at = 0;
  for (const { va, lenBytes } of remote) {
    for (let done = 0; done < lenBytes; ) {
      while (k < local.length && at === local[k]!.length) {
        k++;
        at = 0;
      }
      if (k === local.length) return;
      const len = Math.min(lenBytes - done, local[k]!.length - at);
      yield { va: va + done, lenBytes: len, buffer: local[k]!, at };
      done += len;
      at += len;
    }
  }
}

function copyChunk({ host }: Mm, chunk: Chunk, flags: number, pa: number, at: number, len: number): void {
  const from = chunk.at + at;
  if ((flags & FAULT_FLAG_WRITE) !== 0) host.u8.set(chunk.buffer.subarray(from, from + len), pa);
  else chunk.buffer.set(host.u8.subarray(pa, pa + len), from);
}

function checkIovecs(local: readonly Uint8Array[], remote: readonly Iovec[], flags: number): void {
  const syscall = (flags & FAULT_FLAG_WRITE) !== 0 ? 'processVmWritev' : 'processVmReadv';
  for (const [name, nr] of [
    ['local', local.length],
    ['remote', remote.length],
  ] as const)
    if (nr > MAX_IOV) throw new KernelError('EINVAL', syscall, `${nr} ${name} runs must be at most ${MAX_IOV}`);
  for (const { lenBytes } of remote) {
    if (!(Number.isInteger(lenBytes) && lenBytes >= 0))
      throw new KernelError('EINVAL', syscall, `length ${lenBytes} of a run must be an integer from 0 up`);
  }
}

/** Moves what lies in the page of `va`; 0 when the page has to be faulted in. */
function accessPage(mm: Mm, va: number, at: number, leftBytes: number, flags: number, copy: Copy): number {
  const pfn = mm.tryGetPage(va, flags);
  if (pfn < 0) return 0;
  const offset = va % PAGE_SIZE;
  const lenBytes = Math.min(leftBytes, PAGE_SIZE - offset);
  copy(pfnToPa(pfn) + offset, at, lenBytes);
  mm.putPage(pfn);
  return lenBytes;
}

function checkSpan(va: number, lenBytes: number, flags: number): void {
  if (Number.isInteger(va) && va >= 0 && va + lenBytes <= VA_SIZE) return;
  const syscall = (flags & FAULT_FLAG_WRITE) !== 0 ? 'write' : 'read';
  throw new KernelError('EFAULT', syscall, `address ${va} with ${lenBytes} bytes must lie in [0, 2^39)`);
}
