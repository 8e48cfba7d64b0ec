/**
 * Where the vCPUs of a guest wait while it is stopped.
 *
 * Use: each vCPU's loop awaits `pass()` before it enters the guest; `close()`, then each vCPU is made to leave the guest; `open()`.
 */
export class Gate {
  private opened: Promise<void> | undefined;
  private openUp: (() => void) | undefined;
  private nrWaiting = 0;
  private readonly watchers: (() => void)[] = [];

  get isClosed(): boolean {
    return this.opened !== undefined;
  }

  close(): void {
    if (this.opened !== undefined) return;
    this.opened = new Promise((resolve) => {
      this.openUp = resolve;
    });
  }

  open(): void {
    this.openUp?.();
    this.opened = undefined;
    this.notify();
  }

  /** Waits while the gate is closed. */
  async pass(): Promise<void> {
    while (this.opened !== undefined) {
      this.nrWaiting++;
      this.notify();
      await this.opened;
      this.nrWaiting--;
    }
  }

  /** Resolves once `nr` of them wait at it, or it is open. */
  async reached(nr: number): Promise<void> {
    while (this.opened !== undefined && this.nrWaiting < nr) {
      await new Promise<void>((resolve) => {
        this.watchers.push(resolve);
      });
    }
  }

  private notify(): void {
    for (const watcher of this.watchers.splice(0)) watcher();
  }
}
