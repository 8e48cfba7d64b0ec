import type { Mutant } from 'unpin/explore';

/** Protections of the external device of these models (externaldevice.ts): what any driver must have, taken out. */

const DEVICE = 'explore/externaldevice.ts';

export const noSeq: Mutant = {
  name: 'the fault asks for no retry',
  file: DEVICE,
  find: 'const stale = this.seq.readRetry(seq, this.va);',
  replace: 'const stale = seq < 0;',
};

/** M32: what the fault has looked up is older than the seq that it compares. */
export const lateSeq: Mutant = {
  name: 'the fault reads seq after the look-up',
  file: DEVICE,
  find: `const seq = this.seq.readBegin();
    const pte = this.mm.pageTable.get(this.va / 4096);`,
  replace: `const pte = this.mm.pageTable.get(this.va / 4096);
    const seq = this.seq.readBegin();`,
};

export const noZap: Mutant = {
  name: 'start leaves the entry',
  file: DEVICE,
  find: `this.seq.begin(range.start, range.end);
    this.words.writeOnce(ENTRY, 0);`,
  replace: 'this.seq.begin(range.start, range.end);',
};

export const noCount: Mutant = {
  name: 'no bracket is counted',
  edits: [
    { file: DEVICE, find: 'this.seq.begin(range.start, range.end);', replace: '' },
    { file: DEVICE, find: 'this.seq.end();', replace: '' },
  ],
};

export const noDead: Mutant = {
  name: 'the fault does not see that it was released',
  file: DEVICE,
  find: 'const dead = this.words.readOnce(DEAD) !== 0;',
  replace: 'const dead = false;',
};

const START = 'mmuNotifierInvalidatePagesStart';

/** The operation of mm opens no bracket. */
export function noBracket(file: string): Mutant {
  return { name: `no bracket in ${file}`, file: `mm/${file}`, find: `${START}(mm, `, replace: 'mm.range.set(' };
}

/** The same for one of several runs of pages. */
export function noBracketOfRanges(file: string): Mutant {
  const find = 'mmuNotifierInvalidateRangeStart(mm);';
  return { name: `no bracket in ${file}`, file: `mm/${file}`, find, replace: 'mm.range.seal();' };
}

/** M1, M21, M22: the external entries go when the ptes have changed already. `what`: event and pages of the bracket. */
export function lateBracket(file: string, what: string, change: string): Mutant {
  const start = `${START}(mm, ${what});`;
  return {
    name: `the bracket of ${file} comes after the change`,
    edits: [
      { file: `mm/${file}`, find: start, replace: '' },
      { file: `mm/${file}`, find: change, replace: `${change} ${start}` },
    ],
  };
}

/** At exit the brackets and `release` protect twice: only without both is it seen. */
export function andNoRelease(mutant: Mutant): Mutant {
  const { name, file, find, replace, edits = [] } = mutant;
  const first = file === undefined ? edits : [{ file, find: find!, replace: replace! }];
  const release = {
    file: DEVICE,
    find: `this.words.writeOnce(DEAD, 1);
    this.words.writeOnce(ENTRY, 0);`,
    replace: '',
  };
  return { name: `${name}, and release does nothing`, edits: [...first, release] };
}
