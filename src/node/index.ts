/** What needs Node. */

export { nodeEnvironment } from './environment.js';
export { FileSwap, openFileSwap } from './fileswap.js';
