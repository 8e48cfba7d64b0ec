import type {
  AnonymousFunctionDeclaration,
  AnyNode,
  ArrowFunctionExpression,
  FunctionDeclaration,
  FunctionExpression,
} from 'acorn';

/** Small helpers over acorn's syntax tree. */

export type FuncDeclaration = FunctionDeclaration | AnonymousFunctionDeclaration;
export type Func = FuncDeclaration | FunctionExpression | ArrowFunctionExpression;

const children = new WeakMap<AnyNode, AnyNode[]>();

/**
 * The direct children in the order of the source.
 * WHY: written out, and kept; a bundle has some hundred thousand nodes, and this was half of the time that loading takes.
 */
export function childrenOf(node: AnyNode): readonly AnyNode[] {
  let list = children.get(node);
  if (list === undefined) {
    list = [];
    for (const key in node) {
      const value: unknown = node[key as keyof AnyNode];
      if (typeof value !== 'object' || value === null) continue;
      if (Array.isArray(value)) for (const one of value) addChild(list, one);
      else addChild(list, value);
    }
    children.set(node, list);
  }
  return list;
}

/** A property `{ x }` has one node as key and as value. */
function addChild(list: AnyNode[], value: unknown): void {
  if (!isNode(value) || list[list.length - 1] === value) return;
  let at = list.length;
  while (at > 0 && list[at - 1]!.start > value.start) at--;
  list.splice(at, 0, value);
}

function isNode(value: unknown): value is AnyNode {
  return typeof value === 'object' && value !== null && typeof (value as { type?: unknown }).type === 'string';
}

export function isFunc(node: AnyNode | null | undefined): node is Func {
  return (
    node?.type === 'FunctionDeclaration' ||
    node?.type === 'FunctionExpression' ||
    node?.type === 'ArrowFunctionExpression'
  );
}

export function stripParens(node: AnyNode): AnyNode {
  return node.type === 'ParenthesizedExpression' ? stripParens(node.expression) : node;
}

/** Calls `enter` for the node and all below it, until it returns false for a branch. */
export function walk(
  node: AnyNode,
  enter: (node: AnyNode, parent: AnyNode | undefined) => boolean,
  parent?: AnyNode,
): void {
  if (!enter(node, parent)) return;
  for (const child of childrenOf(node)) walk(child, enter, node);
}

/** The name of `x` or of `.x`; undefined for what is computed. */
export function nameOf(node: AnyNode): string | undefined {
  if (node.type === 'Identifier' || node.type === 'PrivateIdentifier') return node.name;
  if (node.type === 'Literal' && typeof node.value === 'string') return node.value;
  if (node.type === 'MemberExpression') return node.computed ? undefined : nameOf(node.property);
  return undefined;
}

/** Whether the function's own code, arrows in it included, says `this`, `arguments` or `super`. */
export function mentions(func: Func, what: 'this' | 'arguments' | 'super'): boolean {
  let found = false;
  const enter = (node: AnyNode, parent: AnyNode | undefined): boolean => {
    if (parent?.type === 'MemberExpression' && parent.property === node && !parent.computed) return false;
    if (node.type === 'ThisExpression') found ||= what === 'this';
    else if (node.type === 'Super') found ||= what === 'super';
    else if (node.type === 'Identifier') found ||= what === 'arguments' && node.name === 'arguments';
    return (
      !found && node.type !== 'FunctionExpression' && node.type !== 'FunctionDeclaration' && node.type !== 'StaticBlock'
    );
  };
  for (const child of childrenOf(func)) walk(child, enter);
  return found;
}
