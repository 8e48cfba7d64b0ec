/** What an exploration tells on stderr while it runs: a terminal at once, on one line, and anything else every ten seconds. */
export class ExploreProgress {
  private readonly started = Date.now();
  private readonly everyMs = process.stderr.isTTY ? 200 : 10_000;
  private next = this.started + this.everyMs;

  tell(what: () => string): void {
    const now = Date.now();
    if (now < this.next) return;
    this.next = now + this.everyMs;
    const text = `${what()}, ${Math.round((now - this.started) / 1000)} s`;
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}` : `${text}\n`);
  }

  clear(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }
}
