import { I32, ModuleBuilder } from './wasm/index.js';
import { instantiate, isWasmMemory, type WasmMemory } from './webassembly.js';

/**
 * Atomic accesses to the 32-bit words of a memory, by byte address: what `Words` (sync.ts) stands on. All are sequentially consistent; those that
 * read, modify and write return the old value.
 *
 * WHY a WebAssembly module: `Atomics` from JavaScript costs 15 to 20 ns an operation, a call into WebAssembly 5 and the operation there 1 to 3.
 * Memory that is not WebAssembly's keeps `Atomics`.
 */
export interface WordOps {
  load(address: number): number;
  store(address: number, value: number): void;
  add(address: number, value: number): number;
  or(address: number, value: number): number;
  and(address: number, value: number): number;
  exchange(address: number, value: number): number;
  compareExchange(address: number, expected: number, value: number): number;
}

const known = new WeakMap<object, WordOps>();

/** One set of functions for each memory: two would make the calls of every `Words` indirect ones. */
export function wordOpsOf(memory: { readonly buffer: SharedArrayBuffer }): WordOps {
  let ops = known.get(memory.buffer);
  if (ops === undefined) {
    ops = isWasmMemory(memory) ? wasmOps(memory) : atomicsOps(new Int32Array(memory.buffer));
    known.set(memory.buffer, ops);
  }
  return ops;
}

let bytes: Uint8Array | undefined;

function wasmOps(memory: WasmMemory): WordOps {
  bytes ??= moduleBytes();
  const exports = instantiate(bytes, { env: { memory } }) as unknown as WordOps;
  const { load, store, add, or, and, exchange, compareExchange } = exports;
  // WHY not the exports themselves: they are frozen, and an engine looks names up in such an object each time.
  return { load, store, add, or, and, exchange, compareExchange };
}

function moduleBytes(): Uint8Array {
  const module = new ModuleBuilder();
  module.func('load', [I32], [I32]).code.get(0).atomic('i32Load');
  module.func('store', [I32, I32], []).code.get(0).get(1).atomic('i32Store');
  for (const [name, op] of RMW) module.func(name, [I32, I32], [I32]).code.get(0).get(1).atomic(op);
  module.func('compareExchange', [I32, I32, I32], [I32]).code.get(0).get(1).get(2).atomic('i32Cmpxchg');
  return module.toBytes();
}

const RMW = [
  ['add', 'i32Add'],
  ['or', 'i32Or'],
  ['and', 'i32And'],
  ['exchange', 'i32Xchg'],
] as const;

function atomicsOps(i32: Int32Array): WordOps {
  return {
    load: (address) => Atomics.load(i32, address >>> 2),
    store: (address, value) => void Atomics.store(i32, address >>> 2, value),
    add: (address, value) => Atomics.add(i32, address >>> 2, value),
    or: (address, value) => Atomics.or(i32, address >>> 2, value),
    and: (address, value) => Atomics.and(i32, address >>> 2, value),
    exchange: (address, value) => Atomics.exchange(i32, address >>> 2, value),
    compareExchange: (address, expected, value) => Atomics.compareExchange(i32, address >>> 2, expected, value),
  };
}
