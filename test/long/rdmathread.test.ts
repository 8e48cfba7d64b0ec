import { describe, test } from 'vitest';
import { conformanceCases } from '../../src/conformance/index.js';
import { rdmaThread } from '../conformance/rdmaadapter.js';

/** The conformance suite with the NIC in a thread of its own, over TCP: half a minute. The fast tier has it on one thread. */
describe(rdmaThread.name, () => {
  for (const { name, numbers, run } of conformanceCases(rdmaThread)) test(`${numbers.join(' ')}: ${name}`, run);
});
