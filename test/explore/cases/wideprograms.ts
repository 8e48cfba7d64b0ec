import { type Model, model, transfer } from 'unpin/explore';

/**
 * Random small programs that use what programs.ts does not: awaits, actors on one thread, devices, timers, waits with a time-out, plain
 * accesses to shared memory.
 */

export type WideOp =
  | 'load'
  | 'add'
  | 'cas'
  | 'plain'
  | 'plain='
  | 'wait'
  | 'timed'
  | 'notify'
  | 'await'
  | 'device'
  | 'disk'
  | 'timer'
  | 'settle'
  | 'hear';

export interface WideInstruction {
  readonly op: WideOp;
  readonly word: number;
}

interface State {
  readonly words: Int32Array;
  readonly data: Uint8Array;
  readonly registers: number[];
  /** What one actor settles and another may wait for. */
  readonly promise: Promise<number>;
  settle: (value: number) => void;
}

function setup(): State {
  const memory = new SharedArrayBuffer(64);
  let settle: (value: number) => void = () => {};
  const promise = new Promise<number>((resolve) => {
    settle = resolve;
  });
  const data = new Uint8Array(memory, 32, 2);
  return { words: new Int32Array(memory, 0, 2), data, registers: [], promise, settle };
}

async function run(state: State, actor: number, program: readonly WideInstruction[]): Promise<void> {
  const { words, data, registers } = state;
  let register = 10 * (actor + 1);
  for (const { op, word } of program) {
    if (op === 'load') register = (register * 7 + Atomics.load(words, word)) % 1009;
    else if (op === 'add') register += Atomics.add(words, word, actor + 1);
    else if (op === 'cas') register += Atomics.compareExchange(words, word, 0, register);
    else if (op === 'plain') register += data[word]!;
    else if (op === 'plain=') data[word] = register;
    else if (op === 'wait') register += Atomics.wait(words, word, 0).length;
    else if (op === 'timed') register += Atomics.wait(words, word, 0, 5).length;
    else if (op === 'notify') register += 100 * Atomics.notify(words, word);
    else if (op === 'await') await undefined;
    else if (op === 'device') void transfer('device', () => Atomics.add(words, word, 50));
    else if (op === 'disk') register += await transfer('disk', () => Atomics.exchange(words, word, 7));
    else if (op === 'timer') setTimeout(() => Atomics.add(words, word, 20), 1);
    else if (op === 'settle') state.settle(register);
    else register += await state.promise;
  }
  registers[actor] = register;
}

export function widePrograms(
  list: readonly (readonly WideInstruction[])[],
  oneThread: boolean,
  record: (outcome: string) => void,
): Model<State> {
  const names = list.map((_, i) => `p${i}`);
  return model({
    name: 'random programs with devices',
    setup,
    threads: oneThread ? [names.slice(0, 2)] : [],
    actors: Object.fromEntries(list.map((program, i) => [`p${i}`, (state: State) => run(state, i, program)])),
    check({ words, data, registers }) {
      record(JSON.stringify([[...words], [...data], registers]));
      return undefined;
    },
  });
}
