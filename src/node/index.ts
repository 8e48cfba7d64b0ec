/** What needs Node. */
export { FileSwap, openFileSwap } from './fileswap.js';
export { nodeEnvironment } from './environment.js';
