/**
 * What kvm costs: `npm run bench -- kvm [fault] [shootdown] [qemu] [curve] [--rounds 15] [--runs 3] [--minutes 13] [--guest DIR] [--write]`;
 * all parts without a name.
 *
 * fault: a shadow fault beside Linux's KVM, where /dev/kvm is. shootdown: how long the host waits for vCPUs when it takes a page away. qemu: context
 * switches, fork+exec and page faults of a Linux guest beside QEMU TCG; DIR is what `scripts/debian-guest` made, with our programs.
 * curve: time to finish against frames as a fraction of RAM, for 1 to 8 guests, beside pinned ones. `--rounds` is for the first two, `--runs` for the
 * others; the curve makes as many runs as `--minutes` have room for, but one, and goes on where it was when it was interrupted. `--write` puts the results
 * into docs/results/kvm.md and kvm-curve.svg. Wants a machine that is otherwise quiet.
 */

import { measureCurve } from './kvm/curve.js';
import { measureFault } from './kvm/fault.js';
import { measureQemu } from './kvm/qemu.js';
import { measureShootdown } from './kvm/shootdown.js';
import { flag, option } from './lib/common.js';
import { writePart } from './lib/document.js';

const rounds = Number(option('rounds', '15'));
const runs = Number(option('runs', '3'));
const PARTS: Record<string, () => Promise<string>> = {
  fault: () => measureFault(rounds),
  shootdown: () => measureShootdown(rounds),
  qemu: () => measureQemu(runs, option('guest', 'debian-guest')),
  curve: () => measureCurve(runs, Number(option('minutes', '13'))),
};

const named = process.argv.slice(2).filter((arg) => arg in PARTS);
for (const name of named.length > 0 ? named : Object.keys(PARTS)) {
  const text = await PARTS[name]!();
  console.log(`${text}\n`);
  if (flag('write')) writePart('docs/results/kvm.md', name, text);
}
