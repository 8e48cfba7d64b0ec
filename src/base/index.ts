export * from './assert.js';
export * from './config.js';
export * from './errno.js';
export * from './sync.js';
export * from './webassembly.js';
