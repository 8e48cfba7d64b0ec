import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/**
 * A C program of bench/linux-peer, compiled for this run: what it does, the real Linux does. Lines in, a line out each.
 *
 * Use: `const peer = Peer.start('mm.c')`, `await peer.ask('munmap 1024')`, `peer.stop()`. Where there is no Linux, or no compiler,
 * `start` throws and says so.
 */
export class Peer {
  readonly pid: number;
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly lines: AsyncIterator<string>;

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.child = child;
    this.pid = child.pid!;
    child.stderr.pipe(process.stderr);
    child.stdin.on('error', () => {});
    this.lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  static start(source: string, env: Record<string, string> = {}): Peer {
    if (process.platform !== 'linux') throw new Error(`no Linux to compare with: this is ${process.platform}`);
    const folder = mkdtempSync(join(tmpdir(), 'unpin-peer-'));
    const program = join(folder, 'peer');
    try {
      execFileSync('cc', ['-O2', '-pthread', `bench/linux-peer/${source}`, '-o', program], { stdio: 'inherit' });
      const child = spawn(program, { env: { ...process.env, ...env } });
      const kill = () => void child.kill('SIGKILL');
      // Before others that clean up: what it holds must be gone first.
      process.prependOnceListener('exit', kill);
      child.on('exit', () => {
        process.off('exit', kill);
        rmSync(folder, { recursive: true, force: true });
      });
      return new Peer(child);
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw new Error(`no peer to compare with: ${String(error)}`);
    }
  }

  /** Rejects when the program has ended. */
  async ask(line: string): Promise<string> {
    this.child.stdin.write(`${line}\n`);
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`the peer ended while it was asked: ${line}`);
    return value;
  }

  /** Nanoseconds that the operation took; an Error with the reason where it cannot be done. */
  async time(operation: string, nrPages: number): Promise<number | Error> {
    const answer = await this.ask(`${operation} ${nrPages}`);
    return answer.startsWith('absent ') ? new Error(answer.slice('absent '.length)) : Number(answer);
  }

  /** Resolves when it has ended. */
  async stop(): Promise<void> {
    const hasEnded = () => this.child.exitCode !== null || this.child.signalCode !== null;
    if (hasEnded()) return;
    const ended = new Promise((resolve) => this.child.on('exit', resolve));
    this.child.stdin.end();
    await ended;
  }
}
