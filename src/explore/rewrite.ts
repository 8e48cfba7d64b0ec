import {
  type AnyNode,
  type AssignmentExpression,
  type CallExpression,
  type ClassBody,
  type MemberExpression,
  type MethodDefinition,
  type NewExpression,
  type Program,
  parse,
  type UpdateExpression,
} from 'acorn';
import { childrenOf, type Func, type FuncDeclaration, isFunc, mentions, nameOf, stripParens, walk } from './ast.js';
import { type Colouring, colour } from './colour.js';
import { BULK } from './plain.js';

/**
 * Makes a script suspendable: each coloured function (colour.ts) becomes a generator behind a function of the same name and
 * face, and each call in one that may reach another becomes
 *
 *   ((__r = __x.method(object, "name", [arguments])), __x.suspends) ? yield* __r : __r)
 *
 * `__x` is the runtime (runtime.ts). Whoever else calls such a function (a native, a getter, a constructor, the top level) gets
 * it run to its end in one step. `await` becomes a `yield*` too.
 */

/** What is to be told of the plain accesses of a line of the bundle: all, all but races, or nothing. */
export type AccessesOf = (line: number) => 'plain' | 'quiet' | undefined;

/**
 * `code` is a script after esbuild, without optional chaining. Lines stay where they are. Throws a SyntaxError where it cannot be done.
 */
export function rewrite(code: string, accessesOf: AccessesOf = () => undefined): string {
  const program = parse(code, {
    ecmaVersion: 2024,
    sourceType: 'script',
    preserveParens: true,
    allowReturnOutsideFunction: true,
  });
  return new Rewriter(code, colour(program), accessesOf).program(program);
}

class Rewriter {
  private readonly code: string;
  private readonly colouring: Colouring;
  /** Whether the code being written is the own code of a coloured function, where `yield*` may stand. */
  private inside = false;
  private readonly accessesOf: AccessesOf;
  private readonly lineStarts: number[] = [0];
  /** Element expressions that are no reads. */
  private readonly targets = new Set<AnyNode>();

  constructor(code: string, colouring: Colouring, accessesOf: AccessesOf) {
    this.code = code;
    this.colouring = colouring;
    this.accessesOf = accessesOf;
    for (let at = code.indexOf('\n'); at >= 0; at = code.indexOf('\n', at + 1)) this.lineStarts.push(at + 1);
  }

  program(node: Program): string {
    noteTargets(node, this.targets);
    return this.block(node, node.body, node.start, node.end);
  }

  private emit(node: AnyNode): string {
    if (isFunc(node)) return this.func(node);
    switch (node.type) {
      case 'BlockStatement':
        return `{${this.block(node, node.body, node.start + 1, node.end - 1)}}`;
      case 'CallExpression':
        return this.callExpression(node);
      case 'MemberExpression':
        return this.isElement(node) && !this.targets.has(node) ? this.element(node, 'get') : this.plain(node);
      case 'AssignmentExpression':
        return this.isElement(node.left) ? this.assignment(node, node.left) : this.plain(node);
      case 'UpdateExpression':
        return this.isElement(node.argument) ? this.update(node, node.argument) : this.plain(node);
      case 'NewExpression':
        return this.inside && this.colouring.mayReach(node) ? this.newPromise(node) : this.plain(node);
      case 'AwaitExpression':
        return this.inside ? `(yield* __x.await(${this.emit(node.argument)}))` : this.unsupported(node, 'await here');
      case 'ForOfStatement':
        return node.await ? this.unsupported(node, 'for await') : this.plain(node);
      case 'ClassBody':
        return this.classBody(node);
      case 'MethodDefinition':
        return this.methodDefinition(node);
      case 'PropertyDefinition':
      case 'StaticBlock':
        return this.outside(() => this.plain(node));
      case 'Property':
        return isFunc(node.value) && (node.method || node.kind !== 'init')
          ? this.objectMethod(node.value, node)
          : this.plain(node);
      case 'ChainExpression':
        return this.unsupported(node, 'optional chaining that is left');
      default:
        return this.plain(node);
    }
  }

  /** The node's own text, with its children rewritten. */
  private plain(node: AnyNode): string {
    return this.splice(childrenOf(node), node.start, node.end);
  }

  private splice(nodes: readonly AnyNode[], start: number, end: number): string {
    let text = '';
    let at = start;
    for (const node of nodes) {
      if (node.start < at) continue;
      text += this.code.slice(at, node.start) + this.emit(node);
      at = node.end;
    }
    return text + this.code.slice(at, end);
  }

  private outside(write: () => string): string {
    const { inside } = this;
    this.inside = false;
    const text = write();
    this.inside = inside;
    return text;
  }

  /** Statements. Function declarations are hoisted, so their generators must be known before the first statement. */
  private block(parent: AnyNode, body: readonly AnyNode[], start: number, end: number): string {
    const marks: string[] = [];
    for (const node of body) {
      if (node.type !== 'FunctionDeclaration' || !this.colouring.isColoured(node)) continue;
      marks.push(`__x.mark(${node.id!.name}, ${generatorOf(node)});`);
    }
    let first = start;
    if (parent.type !== 'BlockStatement') {
      const directives = body.filter((node) => node.type === 'ExpressionStatement' && node.directive);
      first = directives.length === 0 ? start : directives[directives.length - 1]!.end;
    }
    return (
      this.code.slice(start, first) +
      marks.join(' ') +
      this.splice(
        childrenOf(parent).filter((c) => c.start >= first),
        first,
        end,
      )
    );
  }

  private callExpression(node: CallExpression): string {
    if (this.inside && this.colouring.mayReach(node)) return this.call(node);
    const callee = stripParens(node.callee);
    const bulk = this.bulkOf(callee);
    if (bulk === undefined || callee.type !== 'MemberExpression') return this.plain(node);
    return `${bulk}.bulk(${this.emit(callee.object)}, "${nameOf(callee)}", ${this.args(node)})`;
  }

  /** Who is to be told of a call that may move many elements. */
  private bulkOf(callee: AnyNode): string | undefined {
    if (callee.type !== 'MemberExpression' || callee.computed || callee.object.type === 'Super') return undefined;
    return BULK.test(nameOf(callee) ?? '') ? this.accesses(callee) : undefined;
  }

  /** From 1. */
  private lineOf({ start }: AnyNode): number {
    let [low, high] = [0, this.lineStarts.length];
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.lineStarts[middle]! <= start) low = middle;
      else high = middle;
    }
    return low + 1;
  }

  private accesses(node: AnyNode): string | undefined {
    const accesses = this.accessesOf(this.lineOf(node));
    return accesses && `__x.${accesses}`;
  }

  /** `a[i]`, where it may be an element of shared memory. */
  private isElement(node: AnyNode): node is MemberExpression {
    if (node.type !== 'MemberExpression' || !node.computed || node.object.type === 'Super') return false;
    const { property } = node;
    return !(property.type === 'Literal' && typeof property.value === 'string') && this.accesses(node) !== undefined;
  }

  private element(node: MemberExpression, method: 'get' | 'element'): string {
    return `${this.accesses(node)}.${method}(${this.emit(node.object)}, ${this.emit(node.property)})`;
  }

  private assignment(node: AssignmentExpression, left: MemberExpression): string {
    const value = this.emit(node.right);
    if (node.operator !== '=')
      return `${this.accesses(left)}.assign(${this.element(left, 'element')}, "${node.operator}", ${value})`;
    return `${this.accesses(left)}.set(${this.emit(left.object)}, ${this.emit(left.property)}, ${value})`;
  }

  private update(node: UpdateExpression, target: MemberExpression): string {
    const by = node.operator === '++' ? 1 : -1;
    return `${this.accesses(target)}.step(${this.emit(target.object)}, ${this.emit(target.property)}, ${by}, ${!node.prefix})`;
  }

  private call(node: CallExpression): string {
    const callee = stripParens(node.callee);
    return `(((__r = ${this.invocation(callee, this.args(node))}), __x.suspends) ? yield* __r : __r)`;
  }

  /** The arguments as an array; line breaks between them stay. */
  private args(node: CallExpression): string {
    const list = node.arguments;
    if (list.length === 0) return '[]';
    return `[${this.splice(list, list[0]!.start, node.end - 1)}]`;
  }

  private newPromise(node: NewExpression): string {
    return `(yield* __x.newPromise(${node.arguments.map((arg) => this.emit(arg)).join(', ')}))`;
  }

  private invocation(callee: AnyNode, args: string): string {
    if (callee.type !== 'MemberExpression') return `__x.call((${this.emit(callee)}), void 0, ${args})`;
    const { object, property } = callee;
    if (object.type === 'Super' || property.type === 'PrivateIdentifier') return this.direct(callee, args);
    const key = callee.computed ? this.emit(property) : JSON.stringify(nameOf(property));
    const bulk = this.bulkOf(callee);
    if (bulk !== undefined) return `__x.bulkMethod(${bulk}, ${this.emit(object)}, ${key}, ${args})`;
    return `__x.method(${this.emit(object)}, ${key}, ${args})`;
  }

  private direct(callee: AnyNode & { type: 'MemberExpression' }, args: string): string {
    const self = callee.object.type === 'Super' ? 'this' : this.emit(callee.object);
    return `__x.call(${this.plain(callee)}, ${self}, ${args})`;
  }

  private func(node: Func): string {
    if (!this.colouring.isColoured(node)) return this.outside(() => this.plain(node));
    if (node.type === 'FunctionDeclaration') return this.declaration(node);
    const name = node.type === 'FunctionExpression' && node.id ? node.id.name : undefined;
    let body = `function*${this.signature(node)}`;
    if (node.async) body = `__x.async(${body})`;
    if (node.type === 'ArrowFunctionExpression') {
      for (const what of ['arguments', 'super'] as const)
        if (mentions(node, what)) this.unsupported(node, `${what} in an arrow function that reaches shared words`);
      return `__x.arrow(${mentions(node, 'this') ? 'this' : 'void 0'}, ${body})`;
    }
    if (name === undefined) return `__x.dual(${body})`;
    return `(() => { const ${name} = __x.dual(${body}); return ${name}; })()`;
  }

  private declaration(node: FuncDeclaration): string {
    const name = node.id!.name;
    return (
      `function* ${name}$gen${this.signature(node)} ` +
      `function ${name}() { return __x.atomic(${generatorOf(node)}, this, arguments); }`
    );
  }

  /** `(params) { body }` of a generator. */
  private signature(node: Func): string {
    const { inside } = this;
    this.inside = false;
    const params = node.params.map((param) => this.emit(param)).join(', ');
    this.inside = true;
    const body =
      node.body.type === 'BlockStatement'
        ? this.block(node.body, node.body.body, node.body.start + 1, node.body.end - 1)
        : `return ${this.emit(node.body)};`;
    this.inside = inside;
    return `(${params}) { let __r; ${body} }`;
  }

  private classBody(node: ClassBody): string {
    const methods = node.body.filter((member) => this.isColouredMethod(member));
    if (methods.length === 0) return this.plain(node);
    const list = methods.map((method) => {
      const target = method.static ? 'this' : 'this.prototype';
      return `__x.ownMethod(${target}, ${JSON.stringify(nameOf(method.key))}, ${method.value.async});`;
    });
    const text = this.plain(node);
    return `${text.slice(0, -1)} static { ${list.join(' ')} } }`;
  }

  private isColouredMethod(member: AnyNode): member is MethodDefinition {
    return member.type === 'MethodDefinition' && this.colouring.isColoured(member.value);
  }

  private methodDefinition(node: MethodDefinition): string {
    if (!this.colouring.isColoured(node.value))
      return this.outside(() => this.splice(childrenOf(node), node.start, node.end));
    return `${node.static ? 'static ' : ''}*${this.emit(node.key)}${this.signature(node.value)}`;
  }

  private objectMethod(func: Func, node: AnyNode & { type: 'Property' }): string {
    const coloured = this.colouring.isColoured(func);
    if (coloured && mentions(func, 'super')) this.unsupported(node, 'super in a method of an object literal');
    if (!coloured) return this.plain(node);
    const key = node.computed ? `[${this.emit(node.key)}]` : this.emit(node.key);
    return `${key}: ${this.func(func)}`;
  }

  private unsupported(node: AnyNode, what: string): never {
    const line = this.lineOf(node);
    throw new SyntaxError(
      `the explorer cannot run ${what} (line ${line} of the bundle): ${this.code.slice(node.start, node.end).split('\n')[0]}`,
    );
  }
}

/** Where an element expression stands and is not read: what is assigned to, called, deleted. */
function noteTargets(program: Program, targets: Set<AnyNode>): void {
  const add = (node: AnyNode | null | undefined) => void (node && targets.add(stripParens(node)));
  walk(program, (node) => {
    if (node.type === 'AssignmentExpression' || node.type === 'AssignmentPattern') add(node.left);
    else if (node.type === 'ForInStatement' || node.type === 'ForOfStatement') add(node.left);
    else if (node.type === 'UpdateExpression' || node.type === 'RestElement') add(node.argument);
    else if (node.type === 'UnaryExpression' && node.operator === 'delete') add(node.argument);
    else if (node.type === 'CallExpression' || node.type === 'NewExpression') add(node.callee);
    else if (node.type === 'TaggedTemplateExpression') add(node.tag);
    else if (node.type === 'ArrayPattern') node.elements.forEach(add);
    else if (node.type === 'ObjectPattern')
      for (const property of node.properties) add(property.type === 'Property' ? property.value : property);
    return true;
  });
}

function generatorOf(node: FuncDeclaration): string {
  const generator = `${node.id!.name}$gen`;
  return node.async ? `__x.async(${generator})` : generator;
}
