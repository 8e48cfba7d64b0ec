export * from './csr.js';
export { type Decoded, decode } from './decode.js';
export { type EngineOptions, RiscvEngine } from './engine.js';
export * from './exits.js';
export { FlatMmu, rightsOf } from './flatmmu.js';
export { Hart, type HartOptions } from './hart.js';
export * from './mmu.js';
export * from './sv39.js';
export { INSTRUCTIONS, type Instruction } from './table/index.js';
