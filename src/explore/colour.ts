import type { AnyNode, CallExpression, NewExpression, Program } from 'acorn';
import { childrenOf, type Func, isFunc, nameOf, stripParens, walk } from './ast.js';

/**
 * Which functions of a bundle may reach a scheduling point, and which calls therefore need `yield*`.
 *
 * A function that calls `schedulingPoint`, or is asynchronous, is coloured; so is one that calls by a name that a coloured function
 * has anywhere in the program, or calls what it cannot know (a parameter, a property that was assigned from a variable): a
 * fixpoint over names. That is more than needed, and harmless: at run time the call looks whether it met a generator.
 *
 * Getters, setters, constructors and the user's own generators cannot suspend: what they call runs as one step.
 */
export type Call = CallExpression | NewExpression;

export interface Colouring {
  isColoured(func: Func): boolean;
  /** Whether the call may reach a coloured function. */
  mayReach(call: Call): boolean;
}

/** The primitive that seam.ts is built of. */
export const SEED = 'schedulingPoint';

/** The one class whose constructor can suspend, in its executor: the explorer's own in place of the native one. */
export const PROMISE = 'Promise';

/** Methods of natives that call their argument, for which the runtime has twins that can suspend (natives.ts). */
export const NATIVE_CALLERS = new Set('forEach map filter some every find findIndex flatMap reduce'.split(' '));

interface FuncInfo {
  readonly func: Func;
  readonly names: string[];
  readonly calls: Call[];
}

export function colour(program: Program): Colouring {
  const facts = new Facts();
  facts.collect(program, undefined, undefined);
  facts.solve();
  return { isColoured: (func) => facts.coloured.has(func), mayReach: (call) => facts.mayReach(call) };
}

class Facts {
  readonly coloured = new Set<Func>();
  private readonly funcs: FuncInfo[] = [];
  private readonly colouredNames = new Set<string>([SEED]);
  /** Names of variables and properties whose function is not known where they are bound. */
  private readonly dynamicNames = new Set<string>(['call', 'apply']);

  collect(node: AnyNode, parent: AnyNode | undefined, owner: FuncInfo | undefined): void {
    this.noteBinding(node);
    if (isFunc(node)) {
      this.collectFunc(node, parent);
      return;
    }
    if (node.type === 'CallExpression' || node.type === 'NewExpression') owner?.calls.push(node);
    const inner = node.type === 'PropertyDefinition' || node.type === 'StaticBlock' ? undefined : owner;
    for (const child of childrenOf(node)) this.collect(child, node, inner);
  }

  private collectFunc(func: Func, parent: AnyNode | undefined): void {
    const info: FuncInfo = { func, names: namesOf(func, parent), calls: [] };
    if (canSuspend(func, parent)) this.funcs.push(info);
    for (const param of func.params) {
      for (const name of patternNames(param)) this.dynamicNames.add(name);
      this.collect(param, func, undefined);
    }
    this.collect(func.body, func, info);
  }

  /** Variables and properties that are bound to something else than a function or a class written right there. */
  private noteBinding(node: AnyNode): void {
    if (node.type === 'VariableDeclarator') {
      if (isKnown(node.init)) return;
      for (const name of patternNames(node.id)) this.dynamicNames.add(name);
    } else if (node.type === 'AssignmentExpression') {
      if (!isKnown(node.right)) this.addDynamic(node.left);
    } else if (node.type === 'Property' || node.type === 'PropertyDefinition') {
      const { value } = node;
      if (value !== null && value !== undefined && canBeFunction(value)) this.addDynamic(node.key);
    }
  }

  private addDynamic(target: AnyNode): void {
    const name = nameOf(target);
    if (name !== undefined) this.dynamicNames.add(name);
    else if (target.type !== 'MemberExpression') for (const n of patternNames(target)) this.dynamicNames.add(n);
  }

  solve(): void {
    for (let changed = true; changed; ) {
      changed = false;
      for (const info of this.funcs) {
        if (this.coloured.has(info.func)) continue;
        if (!info.func.async && !info.calls.some((call) => this.mayReach(call))) continue;
        this.coloured.add(info.func);
        for (const name of info.names) this.colouredNames.add(name);
        changed = true;
      }
    }
  }

  mayReach(call: Call): boolean {
    const callee = stripParens(call.callee);
    if (callee.type === 'Super') return false;
    if (call.type === 'NewExpression') return nameOf(callee) === PROMISE && this.passesColoured(call);
    if (isFunc(callee)) return this.coloured.has(callee);
    const name = nameOf(callee);
    if (name === undefined) return true;
    if (this.colouredNames.has(name) || this.dynamicNames.has(name)) return true;
    if (callee.type !== 'MemberExpression' || !NATIVE_CALLERS.has(name)) return false;
    return this.passesColoured(call);
  }

  private passesColoured(call: Call): boolean {
    return call.arguments.some((arg) => (isFunc(arg) ? this.coloured.has(arg) : canBeFunction(arg)));
  }
}

function canSuspend(func: Func, parent: AnyNode | undefined): boolean {
  if (func.generator) return false;
  if (parent?.type === 'MethodDefinition') return parent.kind === 'method' && !parent.computed;
  return !(parent?.type === 'Property' && parent.kind !== 'init');
}

function isKnown(node: AnyNode | null | undefined): boolean {
  return node === null || node === undefined || isFunc(node) || node.type === 'ClassExpression';
}

/** An expression, not a function itself, whose value may be a function. */
function canBeFunction(node: AnyNode): boolean {
  const { type } = stripParens(node);
  return (
    type === 'Identifier' ||
    type === 'MemberExpression' ||
    type === 'CallExpression' ||
    type === 'ConditionalExpression'
  );
}

/** The names by which a function may be called. */
function namesOf(func: Func, parent: AnyNode | undefined): string[] {
  const names: (string | undefined)[] = [];
  if (func.type !== 'ArrowFunctionExpression' && func.id) names.push(func.id.name);
  if (parent?.type === 'VariableDeclarator') names.push(nameOf(parent.id));
  else if (parent?.type === 'AssignmentExpression' || parent?.type === 'AssignmentPattern')
    names.push(nameOf(parent.left));
  else if (parent?.type === 'Property' || parent?.type === 'PropertyDefinition' || parent?.type === 'MethodDefinition')
    names.push(nameOf(parent.key));
  // How a bundler writes a class field: __publicField(this, "name", () => ...).
  else if (parent?.type === 'CallExpression')
    names.push(...parent.arguments.filter((arg) => arg.type === 'Literal').map(nameOf));
  return names.filter((name) => name !== undefined);
}

/** The names that a pattern binds. */
function patternNames(pattern: AnyNode): string[] {
  const names: string[] = [];
  walk(pattern, (node, parent) => {
    if (node.type === 'Identifier' && !(parent?.type === 'Property' && parent.key === node && parent.value !== node))
      names.push(node.name);
    return !isFunc(node);
  });
  return names;
}
