import { describe, expect, it } from 'vitest';
import { instantiate } from '../../src/base/index.js';
import { ACCESS_READ, ACCESS_WRITE, type Decoded, decode, INSTRUCTIONS } from '../../src/riscv/index.js';
import { aim, aimAccess, randomState, randomWord } from './cases.js';
import { compileConstants, DONE, type Site } from './constants.js';
import { copyState } from './lockstep.js';
import { Random } from './random.js';
import { Reference } from './reference.js';
import { CODE, DATA, DATA_BYTES, type Step, TestHart } from './testhart.js';

/**
 * The table with constants for operands (constants.ts) in lockstep with the interpreter: what a compiler of hot code stands
 * on. Both begin in the same state; registers, fcsr, sstatus.FS, pc and memory must be the same afterwards.
 */

const NR_WORDS = 6;
const NR_STATES = 10;
/** What runs in TypeScript by its name: it touches CSRs, modes or fences. */
const WITHOUT_MEANING = /^(fence\.i|ecall|ebreak|wfi|sfence\.vma)$/;
/** What has a meaning for the common case alone: test/isa/csr.test.ts. */
const PARTLY = /^(sret|csrr.*)$/;

const interpreted = new TestHart();
const compiled = new TestHart();
const state = new Reference(BigInt(DATA), DATA_BYTES);

/** Words of 2 bytes, by their entry. */
function compressedWords(): Map<string, number[]> {
  const words = new Map<string, number[]>(INSTRUCTIONS.map((i) => [i.name, []]));
  for (let word = 0; word < 65536; word++) {
    const name = (word & 3) === 3 ? undefined : decode(word)?.instruction.name;
    if (name !== undefined) words.get(name)!.push(word);
  }
  return words;
}

/** For each entry some words of 4 bytes, and of 2 where there are any. */
function makeSites(): Map<string, Site[]> {
  const r = new Random(11);
  const short = compressedWords();
  const words = INSTRUCTIONS.map((instruction) => {
    const few = short.get(instruction.name)!;
    const long = Array.from({ length: NR_WORDS }, () => randomWord(instruction, r));
    return few.length > 0 ? [...long, ...long.map(() => r.pick(few))] : long;
  });
  const site = (decoded: Decoded | undefined) => (decoded ? [{ decoded, pc: BigInt(CODE) }] : []);
  return new Map(INSTRUCTIONS.map((i, n) => [i.name, words[n]!.flatMap((word) => site(decode(word)))]));
}

const sites = makeSites();
const all = [...sites.values()].flat();
const functions = instantiate(compileConstants(all), { env: { memory: compiled.memory } }) as Record<
  string,
  (hart: number) => number
>;

/** Runs the function of a site; a TLB that lacks the page is filled, once, as the slow path would. True: it did all of it. */
function runCompiled(site: Site): boolean {
  const call = () => functions[`f${all.indexOf(site)}`]!(compiled.hart.base) === DONE;
  if (call()) return true;
  const { access, emit } = site.decoded.instruction;
  if (access === undefined || emit === undefined) return false;
  const base = state.x[site.decoded.rs1]!;
  const va = Number(BigInt.asUintN(64, base + BigInt(site.decoded.imm)));
  compiled.hart.hostAddress(va, access.write ? ACCESS_WRITE : ACCESS_READ);
  return call();
}

function crossesPages({ decoded }: Site): boolean {
  const { access } = decoded.instruction;
  const va = Number(BigInt.asUintN(64, state.x[decoded.rs1]! + BigInt(decoded.imm)));
  return access !== undefined && (va & 4095) + access.lenBytes > 4096;
}

function compareAll(what: string, step: Step): void {
  expect(step.trap, what).toBeUndefined();
  const registers = (h: TestHart) => [...h.x, ...h.f, h.hart.pc, BigInt(h.fflags), BigInt(h.frm), BigInt(h.fsField)];
  const [want, have] = [registers(interpreted), registers(compiled)];
  if (want.some((v, i) => v !== have[i])) expect(have, what).toEqual(want);
  expect(Buffer.compare(interpreted.data, compiled.data), `${what}: memory`).toBe(0);
}

/** What was not done leaves everything as it was. */
function nothingDone(what: string): void {
  const registers = (h: { x: BigUint64Array; f: BigUint64Array }) => [...h.x, ...h.f];
  expect(registers(compiled), what).toEqual(registers(state));
  expect(compiled.hart.pc).toBe(state.pc);
}

function prepare(site: Site, r: Random): void {
  randomState(state, r);
  const { decoded } = site;
  const { instruction, lenBytes, word, rs1, imm } = decoded;
  if (lenBytes === 4) aim(state, instruction, word, r);
  else if (instruction.access) aimAccess(state, rs1, BigInt(imm), instruction.access.lenBytes, false, r);
  for (const hart of [interpreted, compiled]) copyState(hart, state);
  // The last access is a reservation now and then.
  if (instruction.name.startsWith('sc.') && r.oneIn(2)) reserve(decoded);
}

function reserve({ word, rs1 }: Decoded): void {
  const lr = 0x1000202f | (word & 0x7000) | (rs1 << 15);
  for (const hart of [interpreted, compiled]) {
    hart.put(CODE + 64, lr);
    hart.step(BigInt(CODE + 64));
    copyState(hart, state);
  }
}

function tryState(site: Site, r: Random): boolean {
  const { instruction, word } = site.decoded;
  const what = `${instruction.name} ${(word >>> 0).toString(16)}`;
  prepare(site, r);
  const done = runCompiled(site);
  const step = interpreted.step(state.pc);
  if (done) {
    compareAll(what, step);
    return true;
  }
  nothingDone(what);
  const slow =
    instruction.emit === undefined || PARTLY.test(instruction.name) || step.trap !== undefined || crossesPages(site);
  expect(slow, `${what} did not run, and the interpreter had no trap`).toBe(true);
  if (Buffer.compare(interpreted.data, compiled.data) !== 0) compiled.data.set(interpreted.data);
  return false;
}

describe('with constant operands, as interpreted', () => {
  for (const [name, list] of sites) {
    it(name, () => {
      const r = new Random(100 + list.length);
      for (let at = 0; at < DATA_BYTES; at += 8) new DataView(state.memory.buffer).setBigUint64(at, r.next());
      for (const hart of [interpreted, compiled]) hart.data.set(state.memory);
      let done = 0;
      for (const site of list) {
        interpreted.put(CODE, site.decoded.word);
        for (let n = 0; n < NR_STATES; n++) if (tryState(site, r)) done++;
      }
      if (WITHOUT_MEANING.test(name)) expect(done).toBe(0);
      else if (!PARTLY.test(name)) expect(done).toBeGreaterThan(NR_STATES);
    });
  }
});

it('every instruction has a meaning in the table, except for those that TypeScript carries out', () => {
  const without = INSTRUCTIONS.filter((i) => i.emit === undefined).map((i) => i.name);
  expect(without.filter((name) => !WITHOUT_MEANING.test(name))).toEqual([]);
  expect(without.length).toBe(5);
});
