import { Deferred } from '../deferred.js';

/** A lock that is held across waits, given on in the order in which it was asked for (Linux: an inode's i_rwsem, held for write). */
export class AsyncLock {
  private locked = false;
  private readonly waiting: Deferred[] = [];

  async run<T>(body: () => Promise<T>): Promise<T> {
    await this.lock();
    try {
      return await body();
    } finally {
      this.unlock();
    }
  }

  private lock(): Promise<void> | undefined {
    if (!this.locked) {
      this.locked = true;
      return undefined;
    }
    const turn = new Deferred();
    this.waiting.push(turn);
    return turn.promise;
  }

  private unlock(): void {
    const next = this.waiting.shift();
    if (next === undefined) this.locked = false;
    else next.resolve();
  }
}
