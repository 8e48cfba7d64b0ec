/** Transfers of a device under test: each takes a turn, or, while they are held, ends when the test says so. */
export class HeldTransfers {
  /** While true, transfers wait for `pump`. */
  held = false;
  private readonly queue: (() => void)[] = [];

  get nrHeld(): number {
    return this.queue.length;
  }

  /** Lets the held transfers end, the last one first. */
  pump(): void {
    for (let run = this.queue.pop(); run !== undefined; run = this.queue.pop()) run();
  }

  protected async turn(): Promise<void> {
    if (this.held) await new Promise<void>((resolve) => this.queue.push(resolve));
    else await new Promise((resolve) => setImmediate(resolve));
  }
}
