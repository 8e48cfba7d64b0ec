/** One suite for every driver over mm: docs/conformance.md. */

export type { ConformanceAdapter, ConformanceCase, ConformanceInstance, ConformanceResult } from './adapter.js';
export { ReferenceDriver } from './reference.js';
export { conformance, conformanceCases } from './suite.js';
