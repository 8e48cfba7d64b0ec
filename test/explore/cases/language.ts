import { type Model, model } from '../../../src/explore/model.js';
import { Words } from '../../../src/mm/index.js';

/**
 * The language's ways to call. A case counts word 0 up from 0, and returns what it makes of it: the test runs it in the
 * production build too, and both must say the same.
 */
export type Case = (words: Words) => unknown;

const next = (words: Words): number => words.fetchAdd(0, 1);

class Base {
  protected readonly words: Words;
  constructor(words: Words) {
    this.words = words;
  }
  static make(words: Words): Derived {
    next(words);
    return new Derived(words);
  }
  take(): number {
    return next(this.words);
  }
  get taken(): number {
    return next(this.words);
  }
}

class Derived extends Base {
  #count = 0;
  callback: (() => number) | undefined;
  readonly arrow = () => this.take() + 100;
  override take(): number {
    return 10 * super.take();
  }
  #hidden(n: number): number {
    this.#count += n;
    return this.take() + this.#count;
  }
  hidden(): number {
    return this.#hidden(1) + this.#hidden(1);
  }
  each(fn: (n: number) => unknown): void {
    for (let i = 0; i < 2; i++) fn(i);
  }
  async later(): Promise<number> {
    const first = this.take();
    await undefined;
    return first + this.take();
  }
}

class TakesInConstructor {
  readonly value: number;
  constructor(words: Words) {
    this.value = next(words);
  }
}

function hoisted(words: Words, depth: number): number {
  return depth === 0 ? 0 : inner() + hoisted(words, depth - 1);
  function inner(): number {
    return next(words);
  }
}

function* generator(words: Words): Generator<number> {
  yield next(words);
  yield next(words);
}

export const suspending: Record<string, Case> = {
  'forEach, map, filter, reduce': (words) => {
    let sum = 0;
    [1, 2].forEach(() => {
      sum += next(words);
    });
    const mapped = [1, 2].map(() => next(words));
    const filtered = [4, 5].filter((n) => n === next(words));
    return [sum, mapped, filtered, [1, 2].reduce((a) => a + next(words), 0)];
  },
  'some, every, find, findIndex': (words) => [
    [0, 1, 2].some((n) => next(words) + n >= 2),
    [3, 9, 9].every((n) => next(words) === n + 1),
    [7].find((n) => next(words) + 3 === n),
    [5, 6].findIndex((n) => next(words) > n),
  ],
  'Map and Set forEach': (words) => {
    let [sum, last] = [0, 0];
    new Set([1, 2]).forEach(() => {
      sum += next(words);
    });
    new Map([[1, 2]]).forEach((value) => {
      sum += next(words);
      last = value;
    });
    return [sum, last];
  },
  'super, overriding, static': (words) => Base.make(words).take(),
  'private methods and fields': (words) => new Derived(words).hidden(),
  'arrow field with this': (words) => new Derived(words).arrow(),
  'callback in a property, optional call': (words) => {
    const object = new Derived(words);
    const before = object.callback?.();
    object.callback = () => next(words);
    return [before, object.callback?.()];
  },
  'callback as a parameter': (words) => {
    const got: number[] = [];
    new Derived(words).each((n) => got.push(next(words) + n));
    return got;
  },
  'hoisted and recursive functions': (words) => hoisted(words, 3),
  'named function expression': (words) => {
    const f = function again(n: number): number {
      return n === 0 ? 0 : next(words) + again(n - 1);
    };
    return f(2);
  },
  'call, apply, bind': (words) => {
    const object = new Derived(words);
    const { take } = object;
    return [take.call(object), take.apply(object, []), take.bind(object)()];
  },
  'object methods, computed calls, spread': (words) => {
    const object = {
      add(a: number, b: number) {
        return next(words) + a + b;
      },
      twice: () => next(words) + next(words) + 2,
    };
    const key: keyof typeof object = 'twice';
    return [object.add(...([1, 0] as const)), object[key]()];
  },
  'callees that are expressions': (words) => {
    const object = { f: () => next(words), g: () => () => next(words) + 5 };
    const pick = (which: boolean) => (which ? object.f : object.g());
    return [pick(true)(), object.g()(), (next(words) > 1 ? object.f : pick(false))(), (() => next(words))()];
  },
  'try, finally, throw': (words) => {
    let message = '';
    try {
      try {
        next(words);
        throw new Error('boom');
      } finally {
        next(words);
      }
    } catch (error) {
      message = (error as Error).message;
    }
    return [message, next(words)];
  },
  'loops, conditions, templates, destructuring': (words) => {
    let text = '';
    for (const n of [next(words)]) text += `${n} ${next(words)}`;
    const [a, b] = [next(words), next(words) || 9];
    switch (a) {
      case 2:
        return `${text} ${a},${b}`;
      default:
        return text;
    }
  },
  'async, await': (words) => new Derived(words).later(),
  'async arrows, Promise.all': async (words) => {
    const one = async () => next(words);
    return [...(await Promise.all([one(), one()])), await one()];
  },
  'then, catch, finally': async (words) => {
    const got: unknown[] = [];
    got.push(await Promise.resolve(1).then((n) => next(words) + n));
    await Promise.reject('no')
      .catch((error) => got.push(error, next(words)))
      .finally(() => next(words));
    got.push(await new Promise((resolve) => resolve(next(words))));
    return got;
  },
  'await of a rejection, async callbacks': async (words) => {
    const fails = async () => {
      next(words);
      await undefined;
      throw new Error('late');
    };
    try {
      await fails();
      return [];
    } catch (error) {
      return [(error as Error).message, next(words)];
    }
  },
};

export const atomic: Record<string, Case> = {
  'in a getter': (words) => new Base(words).taken,
  'in a constructor': (words) => new TakesInConstructor(words).value,
  'comparator of sort': (words) => [2, 1].sort((a, b) => a - b + 0 * next(words)),
  generator: (words) => [...generator(words)],
};

/** The case beside an actor that makes one access to another word. */
export function beside(name: string, run: Case, record: (got: unknown) => void): Model<Words> {
  return model({
    name,
    setup: () => new Words({ buffer: new SharedArrayBuffer(64) }, 0, 2),
    actors: {
      code: async (words: Words) => record([await run(words), words.readOnce(0)]),
      other: (words: Words) => void words.load(1),
    },
  });
}

/** A word's label is a function of the program that could suspend: the explorer calls it to describe a step, where it looks for races. */
export function labelled(): Model<{ words: Words; plain: Int32Array<SharedArrayBuffer> }> {
  const label = { word: (i: number) => nameOfWord(i) };
  return model({
    name: 'labelled',
    setup() {
      const memory = { buffer: new SharedArrayBuffer(64) };
      return { words: new Words(memory, 0, 2, label), plain: new Int32Array(memory.buffer, 32) };
    },
    actors: {
      one: ({ words, plain }) => void words.writeOnce(0, words.readOnce(1) + plain[0]!),
      two: ({ words, plain }) => void words.writeOnce(0, words.readOnce(1) + plain[0]!),
    },
  });
}

function nameOfWord(i: number, makeName?: (i: number) => string): string {
  return makeName === undefined ? `word ${i}` : makeName(i);
}
