/** Shared folders: the FUSE server, and what it needs of its host. */

export * from './filesystem.js';
export { MAX_HANDLES, MAX_NODES } from './nodes.js';
export { FuseServer, MAX_REQUEST, MAX_TRANSFER } from './server.js';
