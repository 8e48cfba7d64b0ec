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
