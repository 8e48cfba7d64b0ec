/** Kernels of a few words, made by hand. */

const IMAGE_HEADER_BYTES = 64;

/** A RISC-V Image of `words`, which begin right behind the header's jump. */
export function imageOf(words: readonly number[], imageSize = 0x10000): Uint8Array {
  const bytes = new Uint8Array(IMAGE_HEADER_BYTES + words.length * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x0400006f, true); // j .+64
  view.setBigUint64(16, BigInt(imageSize), true);
  view.setUint32(56, 0x05435352, true);
  words.forEach((word, i) => {
    view.setUint32(IMAGE_HEADER_BYTES + i * 4, word, true);
  });
  return bytes;
}

/** As Linux's: an Image that is also a PE file with one section, which ends at byte `fileBytes`; only 1 KiB of it is there. */
export function truncatedImage(fileBytes: number): Uint8Array {
  const bytes = new Uint8Array(1024);
  bytes.set(imageOf([]));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0x5a4d, true); // MZ
  view.setUint32(60, 64, true);
  view.setUint32(64, 0x4550, true); // PE
  view.setUint16(64 + 6, 1, true); // sections
  view.setUint16(64 + 20, 0, true); // size of the optional header
  view.setUint32(88 + 16, fileBytes - 512, true); // SizeOfRawData
  view.setUint32(88 + 20, 512, true); // PointerToRawData
  return bytes;
}

/** An ELF64 executable with one segment of `words`; `fields` change bytes of its header. */
export function elfOf(
  words: readonly number[],
  fields: Record<number, number> = {},
  address = 0x8000_0000,
): Uint8Array {
  const start = 120;
  const bytes = new Uint8Array(start + words.length * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x464c457f, true);
  bytes.set([2, 1, 1], 4); // 64-bit, little-endian, version
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, 243, true); // EM_RISCV
  view.setBigUint64(24, BigInt(address), true); // e_entry
  view.setBigUint64(32, 64n, true); // e_phoff
  view.setUint16(54, 56, true); // e_phentsize
  view.setUint16(56, 1, true); // e_phnum
  view.setUint32(64, 1, true); // PT_LOAD
  view.setBigUint64(72, BigInt(start), true); // p_offset
  view.setBigUint64(80, BigInt(address), true); // p_vaddr
  view.setBigUint64(88, BigInt(address), true); // p_paddr
  view.setBigUint64(96, BigInt(words.length * 4), true); // p_filesz
  view.setBigUint64(104, BigInt(words.length * 4), true); // p_memsz
  words.forEach((word, i) => {
    view.setUint32(start + i * 4, word, true);
  });
  for (const [at, value] of Object.entries(fields)) bytes[Number(at)] = value;
  return bytes;
}

/** Guests that never come to an end by themselves. */
export const ENDLESS: Record<string, readonly number[]> = {
  'a tight loop': [0x0000006f], // j .
  'a loop of traps': [0x10501073, 0], // csrw stvec, zero; an illegal instruction: stvec faults for ever
  'sleep without a timer': [0x10500073, 0xffdff06f], // wfi; j .-4
};
/** li a7, 8; ecall: the legacy SBI's shutdown. */
export const POWEROFF = [0x00800893, 0x00000073];
/** Sends back each byte that is typed: the legacy SBI's getchar until there is one, then its putchar. */
export const ECHO = [0x00200893, 0x00000073, 0xfe054ce3, 0x00100893, 0x00000073, 0xfedff06f];
