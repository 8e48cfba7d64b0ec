export * from './assert.js';
export * from './config.js';
export * from './errno.js';
export * from './futex.js';
export * from './intervaltree.js';
export * from './sync.js';
export * from './wasm/index.js';
export * from './webassembly.js';
