import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

/** docs/lguest.md is read beside the sources: what it names is there. (Its links are for readme.test.ts.) */

const root = fileURLToPath(new URL('../..', import.meta.url));
const SOURCES = [
  'src/lguest',
  'src/vmm/lguest',
  'guests/lguest',
  'src/machine/virtio/queue.ts',
  'src/riscv/hart.ts',
  'src/mm/mm.ts',
];
/** Of RISC-V, Linux and Unix. */
const ELSEWHERE = ['SIE', 'FS', 'D', 'a4', 'paravirt_ops', 'VmLck', 'nobody'];

function textOf(path: string): string {
  const at = join(root, path);
  if (statSync(at).isFile()) return readFileSync(at, 'utf8');
  return readdirSync(at)
    .map((name) => textOf(join(path, name)))
    .join('\n');
}

/** Of code, not of what is said about it. */
const code = SOURCES.map(textOf)
  .join('\n')
  .replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '');
const words = new Set(code.match(/\w+/g));
const document = readFileSync(join(root, 'docs/lguest.md'), 'utf8');

/** A hypercall is named in short behind another one. */
function isThere(word: string): boolean {
  return words.has(word) || words.has(`LHCALL_${word}`) || ELSEWHERE.includes(word);
}

test('every name in docs/lguest.md is one of the sources', () => {
  // `name`, `Class.method`; no files, no command lines.
  const names = [...document.matchAll(/`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)`/g)].map(([, name]) => name!);
  const wanted = names.filter((name) => !/\.(c|S|h|ts)$/.test(name));
  expect(wanted.length).toBeGreaterThan(150);
  expect(wanted.filter((name) => !name.split('.').every(isThere))).toEqual([]);
});
