import cliProgress, { type MultiBar, type SingleBar } from 'cli-progress';
import { formatSize } from './args.js';
import type { Pass, User } from './threeusers.js';

/** The users at work: live bars on a terminal, a line for each thing done in a pipe. */

const FORMAT = '  {name}  {bar} {percentage} %  {resident} in frames  {clears} clears  {verified} verified';
const PERIOD_MS = 100;

export class UsersProgress {
  private readonly multi: MultiBar | undefined;
  private readonly bars: SingleBar[] = [];
  private users: readonly User[] = [];
  private timer: NodeJS.Timeout | undefined;

  constructor() {
    if (process.stdout.isTTY !== true) return;
    const look = { format: FORMAT, hideCursor: true, barsize: 16, autopadding: true, stream: process.stdout };
    this.multi = new cliProgress.MultiBar(look, cliProgress.Presets.shades_classic);
  }

  start(users: readonly User[]): void {
    this.users = users;
    if (this.multi === undefined) return;
    for (const user of users) this.bars.push(this.multi.create(user.pagesToDo, 0, payload(user)));
    this.timer = setInterval(() => this.update(), PERIOD_MS);
  }

  private update(): void {
    this.users.forEach((user, i) => {
      this.bars[i]!.update(user.pagesDone, payload(user));
    });
  }

  /** A line above the bars. */
  log(line: string): void {
    if (this.multi === undefined) process.stdout.write(`${line}\n`);
    else this.multi.log(`${line}\x1b[K\n`);
  }

  passed(user: number, pass: Pass): void {
    const { name, ram } = this.users[user]!;
    if (this.multi === undefined) this.log(`  ${name}  ${pass} ${formatSize(ram.lenBytes)}`);
  }

  stop(): void {
    clearInterval(this.timer);
    if (this.bars.length > 0) this.update();
    this.multi?.stop();
  }
}

function payload({ name, ram, verifiedBytes }: User): Record<string, string> {
  return {
    name,
    resident: formatSize(ram.mm.residentPages * 4096).padStart(8),
    clears: String(ram.stats.clears).padStart(6),
    verified: formatSize(verifiedBytes).padStart(8),
  };
}
