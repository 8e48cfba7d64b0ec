/** What needs Node. */

export { nodeEnvironment } from './environment.js';
export { FileStore, openFileStore } from './filestore.js';
export { FileSwap, openFileSwap } from './fileswap.js';
export { openFolder } from './folder.js';
export { nodeNetBackend } from './netsockets.js';
export { type NodeRdmaOptions, nodeRdmaEnvironment } from './rdmaenvironment.js';
export { openScratchFile } from './scratchfile.js';
