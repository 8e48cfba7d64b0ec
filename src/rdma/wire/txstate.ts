/** Why `transmit` has stopped. */

export const TX_IDLE = 0;
/** `out` has no room for the next segment. */
export const TX_FULL = 1;
/** A fetch said that memory is not there yet. */
export const TX_MEMORY = 2;
/** A READ or atomic waits, and all behind it: ORD are in flight. */
export const TX_CREDIT = 3;
/** The responder waits for the first FPDU. */
export const TX_HELD = 4;
/** At its end: nothing more will come. */
export const TX_DONE = 5;
