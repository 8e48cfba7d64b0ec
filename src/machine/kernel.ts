import { KernelError } from '../base/index.js';

/**
 * Recognises a kernel: a RISC-V Linux Image, the same gzipped, or an ELF64 RISC-V executable.
 *
 * Sources: Linux Documentation/arch/riscv/boot-image-header.rst; System V ABI, ELF-64. Use: `loadKernel(bytes, gunzip)`.
 * A file that is none of them, or ends too early, is KernelError ENOEXEC naming what was found.
 */

export interface Segment {
  /** Guest-physical for an ELF kernel, relative to the load address for an Image. */
  readonly address: number;
  readonly bytes: Uint8Array;
  /** Bytes of RAM it takes; what is beyond `bytes` must be zero. */
  readonly memBytes: number;
}

export interface Kernel {
  readonly format: 'image' | 'elf';
  /** Image only: where it goes, from a 2 MiB boundary at the start of RAM. */
  readonly textOffset: number;
  readonly segments: readonly Segment[];
  /** As `Segment.address`. */
  readonly entry: number;
}

const IMAGE_HEADER_BYTES = 64;
const IMAGE_MAGIC2_AT = 56;
const IMAGE_MAGIC2 = 0x0543_5352; // "RSC\x05"
const PE_MAGIC = 0x4550; // "PE\0\0"
const PE_SECTION_BYTES = 40;
const ELF_MAGIC = 0x464c_457f;
const ELF_HEADER_BYTES = 64;
const ELF_PHENT_BYTES = 56;
const EM_RISCV = 243;
const PT_LOAD = 1;

export function loadKernel(bytes: Uint8Array, gunzip: (bytes: Uint8Array) => Uint8Array): Kernel {
  if (bytes.length < 4) throw notExec(`the kernel has ${bytes.length} bytes; it must be a RISC-V Image or ELF file`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return loadKernel(inflate(bytes, gunzip), refuseNested);
  if (view.getUint32(0, true) === ELF_MAGIC) return loadElf(bytes, view);
  if (bytes.length >= IMAGE_HEADER_BYTES && view.getUint32(IMAGE_MAGIC2_AT, true) === IMAGE_MAGIC2) {
    return loadImage(bytes, view);
  }
  const start = Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  throw notExec(`the kernel begins with ${start}; it must be a RISC-V Image (plain or gzip) or an ELF64 file`);
}

function inflate(bytes: Uint8Array, gunzip: (bytes: Uint8Array) => Uint8Array): Uint8Array {
  try {
    return gunzip(bytes);
  } catch (cause) {
    throw new KernelError('ENOEXEC', 'loadKernel', 'the gzip kernel is damaged or truncated', { cause });
  }
}

function refuseNested(): never {
  throw notExec('the kernel is gzip within gzip; it must be compressed once');
}

function loadImage(bytes: Uint8Array, view: DataView): Kernel {
  const fileBytes = imageFileBytes(bytes, view);
  if (fileBytes > bytes.length) throw truncated(fileBytes, bytes.length);
  const textOffset = Number(view.getBigUint64(8, true));
  const imageSize = Number(view.getBigUint64(16, true));
  if (!Number.isSafeInteger(textOffset + imageSize) || imageSize === 0) {
    throw notExec(`the Image's header has text_offset ${textOffset} and image_size ${imageSize}`);
  }
  return {
    format: 'image',
    textOffset,
    entry: 0,
    segments: [{ address: 0, bytes, memBytes: Math.max(imageSize, bytes.length) }],
  };
}

/**
 * The length the file must have, from the PE section headers that a kernel with an EFI stub carries; 0 without them.
 * The Image header itself tells only the size in memory, bss included, so it cannot show a truncated file.
 */
function imageFileBytes(bytes: Uint8Array, view: DataView): number {
  const pe = view.getUint32(60, true);
  if (bytes[0] !== 0x4d || bytes[1] !== 0x5a || pe + 24 > bytes.length) return 0;
  if (view.getUint32(pe, true) !== PE_MAGIC) return 0;
  const sections = pe + 24 + view.getUint16(pe + 20, true);
  const sectionsEnd = sections + view.getUint16(pe + 6, true) * PE_SECTION_BYTES;
  let fileBytes = sectionsEnd;
  for (let at = sections; at < sectionsEnd && at + PE_SECTION_BYTES <= bytes.length; at += PE_SECTION_BYTES) {
    fileBytes = Math.max(fileBytes, view.getUint32(at + 16, true) + view.getUint32(at + 20, true));
  }
  return fileBytes;
}

function loadElf(bytes: Uint8Array, view: DataView): Kernel {
  if (bytes.length < ELF_HEADER_BYTES) throw notExec(`the ELF kernel ends in its header, after ${bytes.length} bytes`);
  if (bytes[4] !== 2 || bytes[5] !== 1) throw notExec('the ELF kernel must be 64-bit and little-endian');
  const machine = view.getUint16(18, true);
  if (machine !== EM_RISCV) throw notExec(`the ELF kernel is for machine ${machine}; it must be ${EM_RISCV} (RISC-V)`);
  const phoff = Number(view.getBigUint64(32, true));
  const phentsize = view.getUint16(54, true);
  const phnum = view.getUint16(56, true);
  if (phentsize !== ELF_PHENT_BYTES) throw notExec(`the ELF kernel's e_phentsize is ${phentsize}; it must be 56`);
  if (phoff + phnum * phentsize > bytes.length) throw truncated(phoff + phnum * phentsize, bytes.length);
  const segments: Segment[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * phentsize;
    if (view.getUint32(at, true) === PT_LOAD) segments.push(loadSegment(bytes, view, at));
  }
  const loaded = segments.filter((segment) => segment.memBytes > 0);
  if (loaded.length === 0) throw notExec('the ELF kernel has no segment to load');
  return { format: 'elf', textOffset: 0, segments: loaded, entry: physicalEntry(bytes, view, phoff, phnum) };
}

function loadSegment(bytes: Uint8Array, view: DataView, at: number): Segment {
  const offset = Number(view.getBigUint64(at + 8, true));
  const fileBytes = Number(view.getBigUint64(at + 32, true));
  const memBytes = Number(view.getBigUint64(at + 40, true));
  if (offset + fileBytes > bytes.length) throw truncated(offset + fileBytes, bytes.length);
  if (memBytes < fileBytes)
    throw notExec(`an ELF segment has ${fileBytes} bytes in the file and ${memBytes} in memory`);
  const address = Number(view.getBigUint64(at + 24, true));
  return { address, bytes: bytes.subarray(offset, offset + fileBytes), memBytes };
}

/** e_entry is virtual where a kernel is linked high: it is moved with the segment that holds it. */
function physicalEntry(bytes: Uint8Array, view: DataView, phoff: number, phnum: number): number {
  const entry = view.getBigUint64(24, true);
  for (let i = 0, at = phoff; i < phnum && at < bytes.length; i++, at += ELF_PHENT_BYTES) {
    const vaddr = view.getBigUint64(at + 16, true);
    const inside = entry >= vaddr && entry < vaddr + view.getBigUint64(at + 40, true);
    if (view.getUint32(at, true) === PT_LOAD && inside) return Number(entry - vaddr + view.getBigUint64(at + 24, true));
  }
  throw notExec(`the ELF kernel's entry 0x${entry.toString(16)} is in none of its segments`);
}

function truncated(need: number, have: number): KernelError {
  return notExec(`the kernel is truncated: it has ${have} bytes and must have ${need}`);
}

function notExec(message: string): KernelError {
  return new KernelError('ENOEXEC', 'loadKernel', message);
}
