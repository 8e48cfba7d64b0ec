import { type ArgKind, argKinds, FROM_ZERO, PAGE, type Program, type Step } from './step.js';

/**
 * Makes a program that differs smaller, as long as it differs: steps are left out, in halves, quarters and at last one by one;
 * then each argument is brought nearer to nothing. What differs may change on the way; that something does is enough.
 */

/** Whether a candidate still differs. */
export type Differs = (program: Program) => Promise<boolean>;

export async function shrink(program: Program, differs: Differs, maxTries = 3000): Promise<Program> {
  let left = maxTries;
  const test: Differs = async (candidate) => left-- > 0 && (await differs(candidate));
  for (;;) {
    const before = JSON.stringify(program.steps);
    program = await dropSteps(program, test);
    program = await simplifySteps(program, test);
    if (JSON.stringify(program.steps) === before || left <= 0) return program;
  }
}

async function dropSteps(program: Program, differs: Differs): Promise<Program> {
  for (let size = Math.ceil(program.steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = program.steps.length - size; at > -size; at -= size) {
      const from = Math.max(at, 0);
      const steps = [...program.steps.slice(0, from), ...program.steps.slice(at + size)];
      const candidate = { ...program, steps };
      if (steps.length > 0 && (await differs(candidate))) program = candidate;
    }
  }
  return program;
}

async function simplifySteps(program: Program, differs: Differs): Promise<Program> {
  for (let i = program.steps.length - 1; i >= 0; i--) {
    program = await simplifyProcess(program, i, differs);
    for (const [k, [, kind]] of argKinds(program.steps[i]!.call).entries()) {
      program = await simplifyArg(program, i, k, kind, differs);
    }
  }
  return program;
}

async function simplifyProcess(program: Program, i: number, differs: Differs): Promise<Program> {
  const step = program.steps[i]!;
  for (let p = 0; p < step.p; p++) {
    const candidate = withStep(program, i, { ...step, p });
    if (await differs(candidate)) return candidate;
  }
  return program;
}

async function simplifyArg(program: Program, i: number, k: number, kind: ArgKind, differs: Differs): Promise<Program> {
  for (let again = true; again; ) {
    again = false;
    for (const value of simpler(kind, program.steps[i]!.args[k]!)) {
      const candidate = withArg(program, i, k, value);
      if (!(await differs(candidate))) continue;
      program = candidate;
      again = true;
      break;
    }
  }
  return program;
}

function withArg(program: Program, i: number, k: number, value: number): Program {
  const step = program.steps[i]!;
  const args = step.args.map((old, n) => (n === k ? value : old));
  return withStep(program, i, { ...step, args });
}

function withStep(program: Program, i: number, changed: Step): Program {
  return { ...program, steps: program.steps.map((old, n) => (n === i ? changed : old)) };
}

/** Values to try instead, the simplest first; each nearer to the end of its chain, so that it ends. */
function simpler(kind: ArgKind, value: number): number[] {
  switch (kind) {
    case 'len':
      return value >= FROM_ZERO || value <= 0 ? [] : lengths(value);
    case 'bytes':
      return value <= 1 ? [] : distinct([1, Math.floor(value / 2), value - 1], value);
    case 'addr':
      return value >= FROM_ZERO || value <= 0 ? [] : addresses(value);
    case 'prot':
      return value === 3 ? [] : [3];
    case 'mapFlags':
      return value === 0x32 ? [] : distinct([0x32, value & ~0xc000], value).filter((v) => v < value || v === 0x32);
    case 'advice':
      return value === 4 ? [] : [4];
    case 'proc':
      return value <= 0 ? [] : distinct([0, 1, value - 1], value).filter((v) => v < value);
    case 'number':
      return value <= 1 ? [] : distinct([1, Math.floor(value / 2)], value);
    default:
      return [];
  }
}

function lengths(value: number): number[] {
  const pages = Math.ceil(value / PAGE);
  const whole = pages * PAGE;
  if (value !== whole) return [whole];
  return distinct([PAGE, Math.ceil(pages / 2) * PAGE, value - PAGE], value).filter((v) => v > 0);
}

function addresses(value: number): number[] {
  const whole = Math.floor(value / PAGE) * PAGE;
  if (value !== whole) return [whole];
  return distinct([0, Math.floor(value / PAGE / 2) * PAGE, value - PAGE], value);
}

function distinct(values: number[], but: number): number[] {
  return [...new Set(values)].filter((v) => v !== but);
}
