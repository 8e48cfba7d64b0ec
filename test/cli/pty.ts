import { spawnSync } from 'node:child_process';
import { Command, MAIN } from './command.js';

/** The command on a real terminal, which util-linux's `script` gives us. */

export const hasScript = spawnSync('script', ['--version']).status === 0;
if (!hasScript) console.warn("SKIPPED: terminals ('script' of util-linux is not installed)");

/** What is written to the command's stdin is typed there. `shell`: what the terminal runs, with "$NODE" "$MAIN" for the command. */
export function inTerminal(shell: string, env: Record<string, string> = {}, killMs = 30_000): Command {
  // `script` runs it by $SHELL: the same one on every machine.
  return new Command('script', ['-qec', shell, '/dev/null'], {
    env: { NODE: process.execPath, MAIN, TERM: 'xterm', SHELL: '/bin/sh', ...env },
    stdin: 'open',
    killMs,
  });
}

export function onTerminal(args: string): Command {
  return inTerminal(`exec "$NODE" "$MAIN" ${args}`);
}

export function type(command: Command, keys: string): void {
  command.process.stdin!.write(keys);
}
