/** What the author of an emulator needs first. The layers are `unpin/mm`, `unpin/notifier`, `unpin/kvm` and so on. */

export { KernelError } from './base/index.js';
export { GuestRam, type GuestRamStats } from './guestram/index.js';
export { Host, type HostOptions, type HostStats, MemorySwap, type Mm, type SwapDevice } from './mm/index.js';
