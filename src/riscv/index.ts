export * from './csr.js';
export { type Decoded, decode } from './decode.js';
export { type EngineOptions, RiscvEngine } from './engine.js';
export { FlatMmu, rightsOf } from './flatmmu.js';
export {
  HART_EXIT_BUDGET,
  HART_EXIT_ECALL,
  HART_EXIT_MMIO,
  HART_EXIT_REQUEST,
  HART_EXIT_WAIT,
  HART_EXIT_WFI,
  Hart,
  type HartExit,
  type HartOptions,
  MODE_SUPERVISOR,
  MODE_USER,
} from './hart.js';
export * from './mmu.js';
export * from './sv39.js';
export { INSTRUCTIONS, type Instruction } from './table/index.js';
