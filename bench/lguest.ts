/**
 * What lguest costs, beside kvm: `npm run bench -- lguest [operations] [curve] [--runs 5] [--write]`; both parts without a name.
 *
 * Both run one kernel (guests/lguest): under lguest it has no privilege and asks by hypercalls, under kvm it believes that it has a hart of its own.
 * operations: what a hypercall, a system call, a page fault, a context switch and a fork take, by the guest's own clock. curve: time to finish against frames
 * as a fraction of RAM, beside locked RAM. `--write` puts the results into docs/results/lguest.md and lguest-curve.svg. Wants a machine that is otherwise quiet.
 */

import { measureCurve } from './lguest/curve.js';
import { measureOperations } from './lguest/operations.js';
import { flag, option } from './lib/common.js';
import { writePart } from './lib/document.js';

const runs = Number(option('runs', '5'));
const PARTS: Record<string, () => Promise<string> | string> = {
  operations: () => measureOperations(runs),
  curve: () => measureCurve(runs),
};

const named = process.argv.slice(2).filter((arg) => arg in PARTS);
for (const name of named.length > 0 ? named : Object.keys(PARTS)) {
  const text = await PARTS[name]!();
  console.log(`${text}\n`);
  if (flag('write')) writePart('docs/results/lguest.md', name, text);
}
