import {
  type AnyNode,
  type CallExpression,
  type ClassBody,
  type MethodDefinition,
  type NewExpression,
  type Program,
  parse,
} from 'acorn';
import { childrenOf, type Func, type FuncDeclaration, isFunc, mentions, nameOf, stripParens } from './ast.js';
import { type Colouring, colour } from './colour.js';

/**
 * Makes a script suspendable: each coloured function (colour.ts) becomes a generator behind a function of the same name and
 * face, and each call in one that may reach another becomes
 *
 *   ((__r = __x.method(object, "name", [arguments])), __x.suspends) ? yield* __r : __r)
 *
 * `__x` is the runtime (runtime.ts). Whoever else calls such a function (a native, a getter, a constructor, the top level) gets
 * it run to its end in one step. `await` becomes a `yield*` too.
 */

/** `code` is a script after esbuild, without optional chaining. Throws a SyntaxError where it cannot be done. */
export function rewrite(code: string): string {
  const program = parse(code, {
    ecmaVersion: 2024,
    sourceType: 'script',
    preserveParens: true,
    allowReturnOutsideFunction: true,
  });
  return new Rewriter(code, colour(program)).program(program);
}

class Rewriter {
  private readonly code: string;
  private readonly colouring: Colouring;
  /** Whether the code being written is the own code of a coloured function, where `yield*` may stand. */
  private inside = false;

  constructor(code: string, colouring: Colouring) {
    this.code = code;
    this.colouring = colouring;
  }

  program(node: Program): string {
    return this.block(node, node.body, node.start, node.end);
  }

  private emit(node: AnyNode): string {
    if (isFunc(node)) return this.func(node);
    switch (node.type) {
      case 'BlockStatement':
        return `{${this.block(node, node.body, node.start + 1, node.end - 1)}}`;
      case 'CallExpression':
        return this.inside && this.colouring.mayReach(node) ? this.call(node) : this.plain(node);
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

  private call(node: CallExpression): string {
    const callee = stripParens(node.callee);
    const args = `[${node.arguments.map((arg) => this.emit(arg)).join(', ')}]`;
    return `(((__r = ${this.invocation(callee, args)}), __x.suspends) ? yield* __r : __r)`;
  }

  private newPromise(node: NewExpression): string {
    return `(yield* __x.newPromise(${node.arguments.map((arg) => this.emit(arg)).join(', ')}))`;
  }

  private invocation(callee: AnyNode, args: string): string {
    if (callee.type !== 'MemberExpression') return `__x.call((${this.emit(callee)}), void 0, ${args})`;
    const { object, property } = callee;
    if (object.type === 'Super' || property.type === 'PrivateIdentifier') return this.direct(callee, args);
    const key = callee.computed ? this.emit(property) : JSON.stringify(nameOf(property));
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
      `function* ${name}$gen${this.signature(node)}\n` +
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
    const line = this.code.slice(0, node.start).split('\n').length;
    throw new SyntaxError(
      `the explorer cannot run ${what} (line ${line} of the bundle): ${this.code.slice(node.start, node.end).split('\n')[0]}`,
    );
  }
}

function generatorOf(node: FuncDeclaration): string {
  const generator = `${node.id!.name}$gen`;
  return node.async ? `__x.async(${generator})` : generator;
}
