import { type Model, model } from 'unpin/explore';
import { Words } from 'unpin/mm';

/** Random small programs over three words and two locks. */

export type Instruction =
  | { op: 'read' | 'write' | 'add' | 'take' | 'lock' | 'unlock'; word: number }
  | { op: 'cas'; word: number; expected: number };

interface State {
  words: Words;
  registers: number[];
}

const LOCKS = 3;

function run(state: State, actor: number, program: readonly Instruction[]): void {
  const { words, registers } = state;
  let register = 10 * (actor + 1);
  for (const instruction of program) {
    const { op, word } = instruction;
    if (op === 'read') register = (register * 7 + words.load(word)) % 1009;
    else if (op === 'write') words.store(word, register);
    else if (op === 'add') register += words.fetchAdd(word, actor + 1);
    else if (op === 'take') register += words.exchange(word, register);
    else if (op === 'cas') register += words.compareExchange(word, instruction.expected, register);
    else if (op === 'lock') words.lock(LOCKS + word);
    else words.unlock(LOCKS + word);
  }
  registers[actor] = register;
}

/** `record` gets each outcome. */
export function programs(list: readonly (readonly Instruction[])[], record: (outcome: string) => void): Model<State> {
  return model({
    name: 'random programs',
    setup: () => ({ words: new Words({ buffer: new SharedArrayBuffer(64) }, 0, 6), registers: [] as number[] }),
    actors: Object.fromEntries(list.map((program, i) => [`p${i}`, (state: State) => run(state, i, program)])),
    check({ words, registers }) {
      const values = [0, 1, 2].map((i) => words.load(i));
      record(JSON.stringify([values, registers]));
      return undefined;
    },
  });
}
