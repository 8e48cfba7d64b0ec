import { type ChildProcess, execFileSync, spawn } from 'node:child_process';

/**
 * The terminal on stdin, key by key and without echo, until `restore`: what is left behind is what was found, however the process ends.
 * An exit restores it (Node does, too, for its own signals); for an end that no handler sees, SIGKILL or an abort, a shell waits on a pipe
 * that the kernel closes, and restores it then.
 *
 *     this process               the guard (sh)
 *     stty -g: settings    ->    read: waits
 *     raw mode
 *     killed                ->   end of file: stty settings
 *
 * After SIGCONT the terminal is made raw again: a shell that had stopped us has its own settings there.
 *
 * Proved by test/cli/terminal.test.ts.
 */
export class RawTerminal {
  private readonly guard: ChildProcess | undefined;
  private readonly stdin = process.stdin;
  private readonly restoreAtExit = () => this.restore();
  private readonly again = () => {
    this.stdin.setRawMode(false);
    this.stdin.setRawMode(true);
  };

  constructor() {
    this.guard = startGuard();
    this.stdin.setRawMode(true);
    process.once('exit', this.restoreAtExit);
    process.on('SIGCONT', this.again);
  }

  restore(): void {
    process.off('exit', this.restoreAtExit);
    process.off('SIGCONT', this.again);
    this.stdin.setRawMode(false);
    // Before it sees the end of its pipe: what has the terminal next may have settings of its own.
    this.guard?.kill('SIGKILL');
  }
}

const GUARD = 'read -r line; stty "$0" <&3';

/** Undefined where there is no stty. */
function startGuard(): ChildProcess | undefined {
  if (process.platform === 'win32') return undefined;
  try {
    const settings = execFileSync('stty', ['-g'], { stdio: [0, 'pipe', 'ignore'], encoding: 'utf8' }).trim();
    // A session of its own: no signal of the terminal reaches it.
    const guard = spawn('sh', ['-c', GUARD, settings], { stdio: ['pipe', 'ignore', 'ignore', 0], detached: true });
    guard.on('error', () => {});
    guard.stdin!.on('error', () => {});
    (guard.stdin as unknown as { unref(): void }).unref();
    guard.unref();
    return guard;
  } catch {
    return undefined;
  }
}
