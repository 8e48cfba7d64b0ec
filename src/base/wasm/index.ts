export * from './code.js';
export * from './module.js';
export * from './opcodes.js';
