import { createMemory, I32, I64, instantiate, ModuleBuilder } from '../src/base/index.js';
import { emitFpFunctions } from '../src/riscv/fp/functions.js';

/** Nanoseconds a floating-point function takes on each of its paths, in a wasm loop, less the empty loop. */

const CALLS = 2_000_000;
const bits = (v: number) => new BigInt64Array(new Float64Array([v]).buffer)[0]!;
const bits32 = (v: number) => (0xffffffffn << 32n) | BigInt(new Uint32Array(new Float32Array([v]).buffer)[0]!);
const module = new ModuleBuilder();
const functions = emitFpFunctions(module);

/** (x, y, z, rm, n): calls n times, and adds up the results so that none is dropped. */
function loop(name: string, arity: number): void {
  const { code: c } = module.func(`loop ${name}`, [I64, I64, I64, I32, I32], [I64]);
  const [sum, flags] = [c.local(I64), c.local(I32)];
  const again = c.loop();
  for (let i = 0; i < arity; i++) c.get(i);
  if (arity > 0) c.get(3).call(functions.get(name)!).set(flags);
  else c.get(0);
  c.get(sum).op('i64Add').set(sum);
  c.get(4).i32(1).op('i32Sub').tee(4).brIf(again).end().get(sum);
}

const arities = { 'fadd.d': 2, 'fmul.d': 2, 'fdiv.d': 2, 'fsqrt.d': 1, 'fmadd.d': 3 };
const singles = { 'fadd.s': 2, 'fmul.s': 2, 'fdiv.s': 2, 'fsqrt.s': 1, 'fmadd.s': 3 };
const all = Object.entries({ empty: 0, ...arities, ...singles });
for (const [name, arity] of all) loop(name, arity);
const exports = instantiate(module.toBytes(), { env: { memory: createMemory(65536) } }) as Record<
  string,
  (x: bigint, y: bigint, z: bigint, rm: number, n: number) => bigint
>;

function nanoseconds(name: string, operands: [bigint, bigint, bigint], rm: number): number {
  const once = () => {
    const start = process.hrtime.bigint();
    exports[`loop ${name}`]!(...operands, rm, CALLS);
    return Number(process.hrtime.bigint() - start) / CALLS;
  };
  return Math.min(...[1, 2, 3, 4, 5].map(once));
}

const base = nanoseconds('empty', [0n, 0n, 0n], 0);
for (const [name] of all.slice(1)) {
  const of = name.endsWith('s') ? bits32 : bits;
  const exact = nanoseconds(name, [of(36), of(4), of(7)], 0) - base;
  const inexact = nanoseconds(name, [of(1.1), of(1.3), of(0.7)], 0) - base;
  const soft = nanoseconds(name, [of(1.1), of(1.3), of(0.7)], 1) - base;
  console.log(`${name.padEnd(8)} exact ${exact.toFixed(1)} ns, inexact ${inexact.toFixed(1)}, soft ${soft.toFixed(1)}`);
}
