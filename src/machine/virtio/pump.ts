/**
 * Runs a job when it is asked to, one at a time; asked while the job runs, it runs once more afterwards. So no notification is lost that
 * comes between a job's last look at its ring and its end.
 *
 * Use: `kick()` at each notification and whenever there may be something to do. The job never throws or rejects.
 */
export class Pump {
  private readonly job: () => Promise<void> | void;
  private asked = false;
  private running = false;

  constructor(job: () => Promise<void> | void) {
    this.job = job;
  }

  kick(): void {
    this.asked = true;
    if (!this.running) this.run();
  }

  private run(): void {
    this.running = true;
    while (this.asked) {
      this.asked = false;
      const waiting = this.job();
      if (waiting === undefined) continue;
      void waiting.then(() => this.run());
      return;
    }
    this.running = false;
  }
}
