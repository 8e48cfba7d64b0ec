import { I32, instantiate, ModuleBuilder, type WasmMemory } from '../../base/index.js';

/**
 * Copies inside the host's memory, by byte address, as a small WebAssembly module. WHY: `Uint8Array.set` on shared memory copies byte by byte
 * where the two are not aligned to each other: 0.9 to 2 GB/s instead of what memory.copy does.
 */
export interface CopyOps {
  copy(dst: number, src: number, lenBytes: number): void;
}

export function createCopyOps(memory: WasmMemory): CopyOps {
  const module = new ModuleBuilder();
  module.func('copy', [I32, I32, I32], []).code.get(0).get(1).get(2).memoryCopy();
  const { copy } = instantiate(module.toBytes(), { env: { memory } }) as unknown as CopyOps;
  return { copy };
}
