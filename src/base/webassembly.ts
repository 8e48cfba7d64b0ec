/**
 * The few parts of the WebAssembly JavaScript interface that the core layers use, typed here because those
 * layers see neither Node's nor the DOM's types.
 */

export interface WasmMemory {
  readonly buffer: SharedArrayBuffer;
}

export type WasmExports = Record<string, unknown>;
export type WasmImports = Record<string, Record<string, unknown>>;

interface WebAssemblyNamespace {
  Memory: new (d: { initial: number; maximum: number; shared: true }) => WasmMemory;
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: WasmImports) => { readonly exports: WasmExports };
}

const wasm = (globalThis as unknown as { WebAssembly: WebAssemblyNamespace }).WebAssembly;

/** Bytes of a WebAssembly page. */
export const WASM_PAGE_SIZE = 65536;

/** A shared memory of `lenBytes`, rounded up to 64 KiB, at its full size from the start: growing would leave old views short. */
export function createMemory(lenBytes: number): WasmMemory {
  const pages = Math.ceil(lenBytes / WASM_PAGE_SIZE);
  return new wasm.Memory({ initial: pages, maximum: pages, shared: true });
}

/** Whether it is one of WebAssembly's, which code there may be bound to. */
export function isWasmMemory(memory: object): boolean {
  return memory instanceof wasm.Memory;
}

/** Compiles and instantiates synchronously: for Node and for workers; a page's own thread may refuse large modules. */
export function instantiate(bytes: Uint8Array, imports: WasmImports): WasmExports {
  return instantiateModule(compile(bytes), imports);
}

/** A compiled module, which threads may hand to one another. */
export function compile(bytes: Uint8Array): object {
  return new wasm.Module(bytes);
}

export function instantiateModule(module: object, imports: WasmImports): WasmExports {
  return new wasm.Instance(module, imports).exports;
}
