/** The lguest driver: paravirtual guests whose memory is the host's, followed through notifiers. */

export * from './abi.js';
export { checkLguest } from './check.js';
export { LguestDeath, type LguestEnd } from './death.js';
export { LguestDevice, type LguestOptions } from './device.js';
export type { LguestEnvironment } from './environment.js';
export type { LguestInit } from './init.js';
export { Lguest, type LguestPending, type LguestStats } from './lguest.js';
