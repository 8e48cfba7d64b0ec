/** Runs at most `max` asynchronous jobs at once; the others wait in order. */
export class Limiter {
  private readonly max: number;
  private running = 0;
  private readonly waiting: (() => void)[] = [];
  private readonly idlers: (() => void)[] = [];

  constructor(max: number) {
    this.max = max;
  }

  async run<T>(job: () => Promise<T>): Promise<T> {
    if (this.running >= this.max) await new Promise<void>((resolve) => this.waiting.push(resolve));
    else this.running++;
    try {
      return await job();
    } finally {
      this.next();
    }
  }

  /** Hands the place on to the next job, or gives it up. */
  private next(): void {
    const next = this.waiting.shift();
    if (next !== undefined) {
      next();
      return;
    }
    this.running--;
    if (this.running === 0) for (const resolve of this.idlers.splice(0)) resolve();
  }

  /** Resolves when nothing runs. */
  async idle(): Promise<void> {
    if (this.running > 0) await new Promise<void>((resolve) => this.idlers.push(resolve));
  }
}
