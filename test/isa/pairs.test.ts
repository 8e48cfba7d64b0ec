import { describe, expect, it } from 'vitest';
import {
  FIRST_HANDLER,
  FIRST_PAIR,
  FUSED,
  HANDLERS,
  type Handler,
  handlerOf,
  pairOf,
} from '../../src/riscv/handlers.js';
import { decode } from '../../src/riscv/index.js';
import { expand } from '../../src/riscv/table/compressed.js';
import { aim, randomState, randomWord } from './cases.js';
import { Lockstep } from './lockstep.js';
import { Random } from './random.js';
import { CODE, RAM_BASE } from './testhart.js';

/**
 * Pairs of instructions that one handler does, against the reference: in one run, with memory that is missing from the TLB, with the
 * first one jumping away, and with a budget that ends between them.
 */

const NR_WORDS = 12;
const machine = new Lockstep();
const { hart, reference } = machine;

/** Compressed words by the number of their handler. */
const COMPRESSED = new Map<number, number[]>();
for (let word = 0; word < 65536; word++) {
  const decoded = (word & 3) === 3 ? undefined : decode(word);
  if (decoded === undefined) continue;
  const words = COMPRESSED.get(handlerOf(decoded));
  if (words === undefined) COMPRESSED.set(handlerOf(decoded), [word]);
  else words.push(word);
}

/** A word with exactly that form: rd is x0 only where the handler says so. */
function wordOf(form: Handler, r: Random): number {
  const handler = FIRST_HANDLER + HANDLERS.indexOf(form);
  if (form.lenBytes === 2) return r.pick(COMPRESSED.get(handler)!);
  for (;;) {
    const word = randomWord(form.instruction, r);
    if (handlerOf(decode(word)!) === handler) return word;
  }
}

function put(first: number, second: number, lenFirst: number): void {
  hart.put(CODE + lenFirst + 4, 0x00010001);
  hart.put(CODE + lenFirst, (second & 3) === 3 ? second : second | 0x00010000);
  if (lenFirst === 4) hart.put(CODE, first);
  else hart.view.setUint16(CODE - RAM_BASE, first, true);
  hart.hart.dropCode(hart.hostPage(CODE));
}

const full = (word: number) => ((word & 3) === 3 ? word : expand(word));

describe.each(FUSED.map((pair) => [`${name(pair.first)} and ${name(pair.second)}`, pair] as const))(
  '%s',
  (_n, pair) => {
    it('do what the two do', () => {
      const r = new Random(pair.first.instruction.match ^ (pair.second.instruction.match << 1));
      for (let n = 0; n < NR_WORDS; ) {
        const [first, second] = [wordOf(pair.first, r), wordOf(pair.second, r)];
        put(first, second, pair.first.lenBytes);
        randomState(reference, r);
        aim(reference, pair.second.instruction, full(second), r);
        aim(reference, pair.first.instruction, full(first), r);
        hart.hart.tlbFlushAll();
        machine.copyState();
        machine.copyMemory();
        if (!aimed(() => machine.stepTwo(first, second, () => `${first.toString(16)} ${second.toString(16)}`)))
          continue;
        n++;
        expect(hart.handlerAt(CODE)).toBe(pairOf(handlerOf(decode(first)!), handlerOf(decode(second)!)));
        expect(hart.handlerAt(CODE)).toBeGreaterThanOrEqual(FIRST_PAIR);
      }
    });

    it('stop between the two where the budget ends', () => {
      const r = new Random(7);
      const [first, second] = [wordOf(pair.first, r), wordOf(pair.second, r)];
      put(first, second, pair.first.lenBytes);
      randomState(reference, r);
      aim(reference, pair.first.instruction, full(first), r);
      machine.copyState();
      machine.copyMemory();
      const { instret } = hart.hart;
      machine.step(first, () => first.toString(16));
      expect(hart.hart.instret - instret).toBeLessThanOrEqual(1);
    });
  },
);

/** False where the first instruction has moved the base of the second's access to where the reference has no memory. */
function aimed(body: () => void): boolean {
  try {
    body();
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function name({ instruction, lenBytes }: Handler): string {
  return `${instruction.name}/${lenBytes}`;
}
