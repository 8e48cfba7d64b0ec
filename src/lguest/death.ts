/** How a guest ended: it asked for power off or for a restart, or did what no guest may do, or its memory was not to be had. */
export type LguestEnd = 'poweroff' | 'restart' | 'killed';

/**
 * What `run` rejects with when the guest is dead: `message` is the guest's own last word, or the reason for which it was killed (Linux: `lg->dead`).
 * Every `run` from then on rejects with the same.
 */
export class LguestDeath extends Error {
  readonly how: LguestEnd;

  constructor(how: LguestEnd, message: string) {
    super(message);
    this.name = 'LguestDeath';
    this.how = how;
  }
}

/** Done. */
export const LG_OK = 0;
/** A page of the guest is absent: wait for it (`GuestAccess.waitHva`), then do the same again. */
export const LG_WAIT = -1;
/** The guest is dead. */
export const LG_DEAD = -2;

/** Whether a guest is dead, and of what. Whatever a guest asks for that cannot be is its own end, and nobody else's. */
export class Fate {
  death: LguestDeath | undefined;

  end(how: LguestEnd, message: string): typeof LG_DEAD {
    this.death ??= new LguestDeath(how, message);
    return LG_DEAD;
  }

  /** Linux: kill_guest. */
  kill(reason: string): typeof LG_DEAD {
    return this.end('killed', reason);
  }
}
