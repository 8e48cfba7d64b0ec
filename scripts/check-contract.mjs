#!/usr/bin/env node
/**
 * Holds `docs/contract.md` against the tree: `node scripts/check-contract.mjs [ROOT]`, part of `npm run check`.
 *
 *  - A number cited in src/, test/, examples/, bench/ or docs/ is in the contract, and is not reserved.
 *  - A promised number has a test that names it in its title; one that is skipped does not count.
 *  - A file that the contract names for a number is there and names the number too (a test: in a title).
 *  - `bug(...)` is called with a promise (N or S), and a file of the tests that a comment of src/ names is there.
 *  - What a document names is there: files and folders of the tree, and what its links lead to.
 *
 * Prints `file:line: what is wrong` for each fault, exit code 1. `--list` prints each number with its tests.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';

const CONTRACT = 'docs/contract.md';
const CITING = ['src', 'test', 'examples', 'bench', 'docs'];
const ENTRY = /^- \*\*([A-Z]\d+)\*\*(?: \((reserved)\b(?:: )?([^)]*)\))?/;
const NUMBER = /\b[SNM]\d+\b/g;
const PATH = /`((?:src|test)\/[\w./-]+)`/g;
const TEST_PATH = /\btest\/[\w./-]+\.ts\b/g;
/** A path from the root, in text or as code; what follows a `*` is not looked at. */
const TREE_PATH = /(?<![\w./@-])(?:src|test|docs|bench|scripts|examples|guests)\/(?:[\w./-]*[\w/-])?/g;
const LINK = /\]\(([^)\s#]*)(?:#([^)\s]+))?\)/g;
const DOCUMENTS = ['README.md', 'CONTRIBUTING.md', 'guests/README.md'];

/** One tree, and the faults found in it. */
class Tree {
  constructor(root) {
    this.root = root;
    this.faults = [];
    this.entries = this.readContract();
    this.tests = this.readTests();
  }

  fault(file, line, message) {
    this.faults.push(`${file}:${line}: ${message}`);
  }

  has(file) {
    return existsSync(join(this.root, file));
  }

  read(file) {
    return readFileSync(join(this.root, file), 'utf8');
  }

  lines(file) {
    return this.read(file)
      .split('\n')
      .map((text, i) => ({ text, line: i + 1 }));
  }

  /** The files below `dir` that may cite numbers, as paths from the root. */
  filesBelow(dir) {
    if (!this.has(dir)) return [];
    return readdirSync(join(this.root, dir), { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && /\.(ts|mjs|md)$/.test(entry.name))
      .map((entry) => relative(this.root, join(entry.parentPath ?? entry.path, entry.name)))
      .filter((file) => !file.includes('node_modules'))
      .sort();
  }

  /** number -> { line, reserved, why, paths: [{ path, line }] } */
  readContract() {
    const entries = new Map();
    let entry;
    for (const { text, line } of this.lines(CONTRACT)) {
      const [found, number, reserved, why = ''] = ENTRY.exec(text) ?? [];
      if (found !== undefined) {
        if (entries.has(number)) this.fault(CONTRACT, line, `${number} is defined a second time`);
        entry = { line, reserved: reserved !== undefined, why, paths: [] };
        entries.set(number, entry);
      } else if (text.startsWith('#')) entry = undefined;
      for (const [, path] of text.matchAll(PATH)) entry?.paths.push({ path, line });
    }
    if (entries.size === 0) this.fault(CONTRACT, 1, 'no numbers here: they are lines such as "- **N1** what holds"');
    return entries;
  }

  /** number -> [{ file, line, title }] */
  readTests() {
    const tests = new Map();
    for (const file of this.filesBelow('test').filter((file) => file.endsWith('.test.ts'))) {
      for (const { title, line } of titlesOf(file, this.read(file))) {
        for (const number of new Set(title.match(NUMBER))) {
          tests.set(number, [...(tests.get(number) ?? []), { file, line, title }]);
        }
      }
    }
    return tests;
  }

  check() {
    for (const file of CITING.flatMap((dir) => this.filesBelow(dir))) this.checkCitations(file);
    for (const file of this.filesBelow('src')) this.checkProofs(file);
    for (const file of this.filesBelow('src')) this.checkBugs(file);
    const documents = this.filesBelow('docs').filter((file) => file.endsWith('.md'));
    for (const file of [...DOCUMENTS, ...documents]) if (this.has(file)) this.checkDocument(file);
    for (const [number, entry] of this.entries) this.checkEntry(number, entry);
    return this.faults;
  }

  checkCitations(file) {
    for (const { text, line } of this.lines(file)) {
      for (const number of new Set(text.match(NUMBER))) this.checkCitation(file, line, number);
    }
  }

  checkCitation(file, line, number) {
    const entry = this.entries.get(number);
    if (entry === undefined) this.fault(file, line, `${number} is not in ${CONTRACT}`);
    else if (entry.reserved && file !== CONTRACT) {
      const where = `${CONTRACT}:${entry.line}${entry.why === '' ? '' : `, ${entry.why}`}`;
      this.fault(file, line, `${number} is reserved (${where}); promise it there first`);
    }
  }

  checkProofs(file) {
    for (const { text, line } of this.lines(file)) {
      for (const [path] of text.matchAll(TEST_PATH)) {
        if (!this.has(path)) this.fault(file, line, `${path} does not exist`);
      }
    }
  }

  checkDocument(file) {
    for (const { text, line } of this.lines(file)) {
      for (const [path] of text.matchAll(TREE_PATH))
        if (!this.has(path)) this.fault(file, line, `${path} does not exist`);
      for (const [, to, heading] of text.matchAll(LINK)) this.checkLink(file, line, to, heading);
    }
  }

  checkLink(file, line, to, heading) {
    if (/^[a-z]+:/.test(to)) return;
    const target = to === '' ? file : join(dirname(file), to);
    if (!this.has(target)) this.fault(file, line, `the link to ${to} leads nowhere`);
    else if (heading !== undefined && !this.headings(target).has(heading))
      this.fault(file, line, `${target} has no heading #${heading}`);
  }

  /** The names by which links name the headings of a document. */
  headings(file) {
    const texts = this.lines(file).map(({ text }) => /^#+ (.*)$/.exec(text)?.[1]);
    const names = texts.filter((text) => text !== undefined).map((text) => text.toLowerCase());
    return new Set(names.map((name) => name.replace(/[^\w\- ]/g, '').replaceAll(' ', '-')));
  }

  checkBugs(file) {
    for (const { text, line } of this.lines(file)) {
      const [, , invariant] = /\bbug\((['"`])(.*?)\1/.exec(text) ?? [];
      if (invariant !== undefined && !/^[NS]\d+$/.test(invariant))
        this.fault(file, line, `bug('${invariant}', ...): the first argument must be a number of ${CONTRACT}`);
    }
  }

  checkEntry(number, entry) {
    if (!entry.reserved && !this.tests.has(number))
      this.fault(CONTRACT, entry.line, `${number} is promised, but no test names it in its title`);
    for (const { path, line } of entry.paths) {
      if (this.has(path) && !this.names(path, number))
        this.fault(CONTRACT, line, `${number}: ${path} does not name it`);
    }
  }

  names(path, number) {
    if (path.endsWith('.test.ts')) return (this.tests.get(number) ?? []).some(({ file }) => file === path);
    return new RegExp(`\\b${number}\\b`).test(this.read(path));
  }

  list() {
    return [...this.entries].flatMap(([number, { reserved, why }]) => [
      reserved ? `${number} reserved: ${why}` : number,
      ...(this.tests.get(number) ?? []).map(({ file, line, title }) => `  ${file}:${line} ${title}`),
    ]);
  }
}

/** Titles of the tests of a file that run: [{ title, line }]. */
function titlesOf(file, text) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest);
  const titles = [];
  const visit = (node) => {
    if (ts.isCallExpression(node) && isTest(node.expression) && node.arguments.length > 0) {
      const title = node.arguments[0].getText(source);
      titles.push({ title, line: source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1 });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return titles;
}

/** `test`, `it`, `describe`, and those with modifiers: `test.each(...)`, `it.skipIf(...)`; not `test.skip`, `test.todo`. */
function isTest(callee) {
  if (ts.isIdentifier(callee)) return ['test', 'it', 'describe'].includes(callee.text);
  if (ts.isPropertyAccessExpression(callee))
    return !['skip', 'todo'].includes(callee.name.text) && isTest(callee.expression);
  return ts.isCallExpression(callee) && isTest(callee.expression);
}

/** The faults of the tree at `root`, a line each. */
export function checkContract(root) {
  return new Tree(root).check();
}

function main(args) {
  const tree = new Tree(args.find((arg) => !arg.startsWith('-')) ?? '.');
  if (args.includes('--list')) process.stdout.write(`${tree.list().join('\n')}\n`);
  const faults = tree.check();
  if (faults.length === 0) return;
  process.stderr.write(`${faults.join('\n')}\ncheck-contract: ${faults.length} fault${faults.length > 1 ? 's' : ''}\n`);
  process.exitCode = 1;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href)
  main(process.argv.slice(2));
