/** RAM for emulators, larger than its frames. */

export { GuestRam } from './guestram.js';
export type { GuestRamStats } from './softtlb.js';
