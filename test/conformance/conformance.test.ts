import { describe, test } from 'vitest';
import { conformanceCases } from '../../src/conformance/index.js';
import { guestRam, guestRamBlocking, kvm, lguest, reference } from './adapters.js';
import { rdma } from './rdmaadapter.js';

/**
 * Every driver under the one suite: what an adapter says that a driver cannot do is not looked at. The numbers are in the titles of the cases
 * (src/conformance).
 */

describe.each([reference, guestRam, guestRamBlocking, kvm, lguest, rdma])('$name', (adapter) => {
  for (const { name, numbers, run } of conformanceCases(adapter)) test(`${numbers.join(' ')}: ${name}`, run);
});
