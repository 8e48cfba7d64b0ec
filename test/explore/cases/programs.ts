import { type Model, model } from '../../../src/explore/model.js';
import { cpuRelax, Words } from '../../../src/mm/index.js';

/** Random small programs over three words and two locks. */

export type Instruction =
  | { op: 'read' | 'once' | 'write' | 'add' | 'or' | 'and' | 'take' | 'lock' | 'unlock' | 'notify'; word: number }
  | { op: 'once=' | 'relax'; word: number }
  | { op: 'cas' | 'wait' | 'until'; word: number; expected: number };

export interface State {
  words: Words;
  registers: number[];
}

const LOCKS = 3;

export function run(state: State, actor: number, program: readonly Instruction[]): void {
  const { words, registers } = state;
  let register = 10 * (actor + 1);
  for (const instruction of program) {
    const { op, word } = instruction;
    if (op === 'read') register = (register * 7 + words.load(word)) % 1009;
    else if (op === 'once') register += words.readOnce(word);
    else if (op === 'write') words.store(word, register);
    else if (op === 'or') register += words.fetchOr(word, register);
    else if (op === 'and') register += words.fetchAnd(word, register);
    else if (op === 'notify') words.notify(word);
    else if (op === 'add') register += words.fetchAdd(word, actor + 1);
    else if (op === 'take') register += words.exchange(word, register);
    else if (op === 'once=') words.writeOnce(word, register);
    else if (op === 'wait') words.wait(word, instruction.expected);
    else if (op === 'relax') cpuRelax();
    else if (op === 'until') for (let n = 0; words.load(word) === instruction.expected && n < 2; n++) cpuRelax();
    else if (op === 'cas') register += words.compareExchange(word, instruction.expected, register);
    else if (op === 'lock') words.lock(LOCKS + word);
    else words.unlock(LOCKS + word);
  }
  registers[actor] = register;
}

export function setup(): State {
  return { words: new Words({ buffer: new SharedArrayBuffer(64) }, 0, 6), registers: [] };
}

export function outcomeOf({ words, registers }: State): string {
  const values = [0, 1, 2, 3, 4, 5].map((i) => words.load(i));
  return JSON.stringify([values, registers]);
}

/** `record` gets each outcome. */
export function programs(list: readonly (readonly Instruction[])[], record: (outcome: string) => void): Model<State> {
  return model({
    name: 'random programs',
    setup,
    actors: Object.fromEntries(list.map((program, i) => [`p${i}`, (state: State) => run(state, i, program)])),
    check(state) {
      record(outcomeOf(state));
      return undefined;
    },
  });
}
