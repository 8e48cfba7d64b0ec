export { DescriptorChain, type GuestRun } from './chain.js';
export * from './device.js';
export { type Defer, Dma } from './dma.js';
export * from './queue.js';
