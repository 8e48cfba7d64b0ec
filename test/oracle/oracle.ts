import { Random } from '../isa/random.js';
import { compareTraces, type Difference } from './compare.js';
import { Generator } from './generate.js';
import type { Base, LinuxPeer } from './linux.js';
import { shrink } from './shrink.js';
import { CALL_NAMES, type CallName, describeStep, type Program, RET_SKIPPED, type Step } from './step.js';
import type { Outcome, Trace } from './trace.js';
import { runOnUnpin, type UnpinOptions, UnpinWorld } from './unpin.js';

/**
 * The oracle: a random program runs on Linux and on Unpin, and both must show the same after every step.
 *
 * Use: `new Oracle(peer, options)`, `await runSeed(seed, nrSteps)`, and `await shrunk(failure)` where it differs.
 */
export interface OracleOptions extends UnpinOptions {
  /** Programs are made of these; default: all that Unpin has. */
  readonly onlyCalls?: readonly CallName[];
}

export interface Failure {
  readonly program: Program;
  readonly difference: Difference;
  readonly linux: Trace;
  readonly unpin: Trace;
}

export class Oracle {
  private readonly peer: LinuxPeer;
  private readonly options: OracleOptions;
  private base: Base | undefined;

  constructor(peer: LinuxPeer, options: OracleOptions = {}) {
    this.peer = peer;
    this.options = options;
  }

  /** Makes up the program of a seed and runs it on both sides. Undefined: they agree. */
  async runSeed(seed: number, nrSteps: number): Promise<Failure | undefined> {
    const { program, trace } = await this.generate(seed, nrSteps);
    return this.judge(program, trace);
  }

  /** Runs a program that there is already. */
  async runProgram(program: Program): Promise<Failure | undefined> {
    return this.judge(program, await runOnUnpin(program, await this.baseOf(), this.options));
  }

  /** The smallest program found that differs, from one that does. */
  async shrunk(failure: Failure): Promise<Failure> {
    const steps = failure.program.steps.slice(0, failure.difference.at + 1);
    let smallest = failure;
    await shrink({ ...failure.program, steps }, async (candidate) => {
      const result = await this.runProgram(candidate);
      if (result !== undefined) smallest = result;
      return result !== undefined;
    });
    return smallest;
  }

  private async judge(program: Program, unpin: Trace): Promise<Failure | undefined> {
    const linux = await this.peer.run(passedOver(program, unpin));
    const pressure = this.options.pressure ?? false;
    const difference = compareTraces(program, linux, unpin, { pressure });
    return difference === undefined ? undefined : { program, difference, linux, unpin };
  }

  private async generate(seed: number, nrSteps: number): Promise<{ program: Program; trace: Trace }> {
    const shape = shapeOf(seed);
    const world = new UnpinWorld(shape, await this.baseOf(), this.options);
    const calls = this.callsFor(world);
    const generator = new Generator(seed, world, calls);
    const steps: Step[] = [];
    const outcomes: Outcome[] = [];
    const trace = { outcomes, broken: undefined as string | undefined };
    try {
      for (let step: Step | undefined; steps.length < nrSteps && (step = generator.next()) !== undefined; ) {
        steps.push(step);
        outcomes.push(await world.step(step));
      }
      await world.end();
    } catch (error) {
      trace.broken = String(error);
    }
    const { broken } = trace;
    return { program: { ...shape, steps }, trace: broken === undefined ? { outcomes } : { outcomes, broken } };
  }

  private callsFor(world: UnpinWorld): CallName[] {
    const available = world.available();
    const { onlyCalls = CALL_NAMES, pressure = false } = this.options;
    return CALL_NAMES.filter(
      (c) => available.includes(c) && onlyCalls.includes(c) && !(pressure && PINNING.includes(c)),
    );
  }

  /** What a process of the peer has mapped by itself: the same in all of its programs. */
  private async baseOf(): Promise<Base> {
    this.base ??= (await this.peer.run({ windowPages: 1, leadPages: 0, storage: 'memfd', steps: [NOTHING] })).base;
    return this.base;
  }
}

/** What no host of few frames can do for a program of many pages. */
const PINNING: readonly CallName[] = ['mlock', 'mlock2', 'mlockall'];
const NOTHING: Step = { call: 'munlockall', p: 0, args: [] };

/** Most windows are small and lie across a 2 MiB boundary; some hold several whole tables. */
function shapeOf(seed: number): Omit<Program, 'steps'> {
  const r = new Random(seed + 0x5eed);
  const storage = r.oneIn(2) ? 'memfd' : 'file';
  if (r.oneIn(8)) return { windowPages: 2048, leadPages: 512, storage };
  const windowPages = r.pick([32, 64, 256]);
  return { windowPages, leadPages: windowPages / 2, storage };
}

/** What Unpin passed over, because it does not have it or the outcome is not determined, Linux passes over too. */
function passedOver(program: Program, unpin: Trace): Program {
  const steps = program.steps.map((step, i) => (unpin.outcomes[i]?.ret === RET_SKIPPED ? { ...step, p: -1 } : step));
  return { ...program, steps };
}

/** A failure as text: the difference, then the program. */
export function describeFailure(failure: Failure): string {
  const { program, difference } = failure;
  const lines = program.steps.map((step, i) => `${i === difference.at ? '>' : ' '} ${i}: ${describeStep(step)}`);
  const window = `window of ${program.windowPages} pages, 2 MiB boundary at page ${program.leadPages}, files are ${program.storage}s`;
  const head = `step ${difference.at}: ${difference.what}\n    Linux: ${difference.linux}\n    Unpin: ${difference.unpin}`;
  return `${head}\n  ${window}\n${lines.join('\n')}`;
}
