import type { ModuleBuilder } from '../../base/index.js';
import { emitArithmetic } from './arithmetic.js';
import { emitComparisons } from './compare.js';
import { emitConversions } from './convert.js';
import type { Functions } from './format.js';
import { emitRounding } from './round.js';
import { emitSoft } from './soft.js';

/**
 * Adds the floating-point functions that FLOAT's entries call (`Emit.call`) to a module; returns their indices by name.
 * They use no memory and call nothing outside. They are exported too, for the tests and benchmarks.
 */
export function emitFpFunctions(module: ModuleBuilder): Map<string, number> {
  const functions: Functions = new Map();
  emitRounding(module, functions);
  emitSoft(module, functions);
  emitArithmetic(module, functions);
  emitConversions(module, functions);
  emitComparisons(module, functions);
  return functions;
}
