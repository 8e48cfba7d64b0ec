import { readFileSync, writeFileSync } from 'node:fs';

/** Replaces what stands between `<!-- NAME -->` and `<!-- end of NAME -->` in a document: the results that a benchmark prints. */
export function writePart(path: string, name: string, text: string): void {
  const document = readFileSync(path, 'utf8');
  const [begin, end] = [`<!-- ${name} -->`, `<!-- end of ${name} -->`];
  const [at, until] = [document.indexOf(begin), document.indexOf(end)];
  if (at < 0 || until < at) throw new Error(`bench: ${path} has no part '${name}' to write to`);
  writeFileSync(path, `${document.slice(0, at)}${begin}\n\n${text}\n\n${document.slice(until)}`);
}
