import { Code, pushUnsigned } from './code.js';

/**
 * A WebAssembly module under construction: imports first, then functions, then `toBytes`. The one memory is imported as
 * `env.memory`, shared.
 */

export interface FuncType {
  readonly params: readonly number[];
  readonly results: readonly number[];
}

interface Func {
  readonly type: number;
  readonly code: Code;
}

const ENV = 'env';
/** 4 GiB in pages: an import must not ask for less than what is given. */
const MAX_PAGES = 65536;

export class ModuleBuilder {
  private readonly types: FuncType[] = [];
  private readonly imports: { name: string; type: number }[] = [];
  private readonly funcs: Func[] = [];
  private readonly exports: { name: string; func: number }[] = [];

  /** Imports `env.<name>`; returns the function's index. All imports come before the first function. */
  importFunc(name: string, params: readonly number[], results: readonly number[]): number {
    if (this.funcs.length > 0) throw new Error(`import ${name} must come before the first function`);
    this.imports.push({ name, type: this.typeIndex(params, results) });
    return this.imports.length - 1;
  }

  /** A new function, exported if it has a name; returns its index and its body, to be written before `toBytes`. */
  func(name: string | undefined, params: readonly number[], results: readonly number[]): { index: number; code: Code } {
    const code = new Code(params.length);
    this.funcs.push({ type: this.typeIndex(params, results), code });
    const index = this.imports.length + this.funcs.length - 1;
    if (name !== undefined) this.exports.push({ name, func: index });
    return { index, code };
  }

  private typeIndex(params: readonly number[], results: readonly number[]): number {
    const same = (t: FuncType) => t.params.join() === params.join() && t.results.join() === results.join();
    const found = this.types.findIndex(same);
    return found >= 0 ? found : this.types.push({ params, results }) - 1;
  }

  toBytes(): Uint8Array {
    const out: number[] = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
    section(out, 1, this.types, (b, t) => {
      b.push(0x60);
      vector(b, t.params);
      vector(b, t.results);
    });
    this.writeImports(out);
    section(out, 3, this.funcs, (b, f) => pushUnsigned(b, f.type));
    section(out, 7, this.exports, (b, e) => {
      name(b, e.name);
      b.push(0x00);
      pushUnsigned(b, e.func);
    });
    section(out, 10, this.funcs, writeBody);
    return Uint8Array.from(out);
  }

  private writeImports(out: number[]): void {
    const memory = (b: number[]) => {
      name(b, ENV);
      name(b, 'memory');
      b.push(0x02, 0x03);
      pushUnsigned(b, 0);
      pushUnsigned(b, MAX_PAGES);
    };
    const funcs = this.imports.map((i) => (b: number[]) => {
      name(b, ENV);
      name(b, i.name);
      b.push(0x00);
      pushUnsigned(b, i.type);
    });
    section(out, 2, [...funcs, memory], (b, write) => write(b));
  }
}

function section<T>(out: number[], id: number, items: readonly T[], write: (bytes: number[], item: T) => void): void {
  const bytes: number[] = [];
  pushUnsigned(bytes, items.length);
  for (const item of items) write(bytes, item);
  out.push(id);
  pushUnsigned(out, bytes.length);
  append(out, bytes);
}

/** Bodies are too long for the arguments of one `push`. */
function append(out: number[], bytes: readonly number[]): void {
  for (const byte of bytes) out.push(byte);
}

function vector(bytes: number[], values: readonly number[]): void {
  pushUnsigned(bytes, values.length);
  append(bytes, values);
}

/** Names are ASCII. */
function name(bytes: number[], text: string): void {
  vector(
    bytes,
    [...text].map((c) => c.charCodeAt(0)),
  );
}

function writeBody(out: number[], func: Func): void {
  const bytes: number[] = [];
  pushUnsigned(bytes, func.code.locals.length);
  for (const type of func.code.locals) bytes.push(1, type);
  append(bytes, func.code.bytes);
  bytes.push(0x0b);
  pushUnsigned(out, bytes.length);
  append(out, bytes);
}
