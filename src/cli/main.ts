#!/usr/bin/env node
import { debuglog } from 'node:util';
import { Command, CommanderError } from 'commander';
import { KernelError, systemError } from '../base/index.js';
import { bootCommand } from './boot.js';
import { exploreCommand } from './explore.js';
import { lguestCommand } from './lguest.js';
import { rdmaCommand } from './rdma/command.js';
import { startCommand } from './start.js';
import { stepCommand } from './step.js';

/**
 * The command `unpin`. Each verb is a file beside this one; here is only what they share: what fails is told in one clear line,
 * never by a stack trace. Exit codes: 2 for what was asked for and cannot be, 70 for a bug of ours (sysexits' EX_SOFTWARE).
 */

const EXIT_BAD_INPUT = 2;
const EXIT_BUG = 70;
/** As of a program that SIGPIPE ended. */
const EXIT_SIGPIPE = 141;
/** NODE_DEBUG=unpin shows the stack of an unexpected error. */
const debug = debuglog('unpin');

function createProgram(): Command {
  const program = new Command('unpin');
  program
    .description('Virtual memory for TypeScript hosts, with pte notifiers')
    .configureOutput({ outputError: (text, write) => write(`unpin: EINVAL: ${oneLine(text)}\n`) })
    .exitOverride();
  for (const command of [
    startCommand(),
    bootCommand(),
    lguestCommand(),
    rdmaCommand(),
    exploreCommand(),
    stepCommand(),
  ]) {
    command.copyInheritedSettings(program);
    for (const verb of command.commands) verb.copyInheritedSettings(program);
    program.addCommand(command);
  }
  return program;
}

function oneLine(text: string): string {
  return text
    .replace(/^error: /, '')
    .trim()
    .replace(/\s*\n\s*/g, ' ');
}

/** Exit code of a failed run; says why, once. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_BAD_INPUT;
  debug('%O', error);
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof KernelError) {
    process.stderr.write(`unpin: ${message}\n`);
    return EXIT_BAD_INPUT;
  }
  process.stderr.write(`unpin: unexpected: ${oneLine(message)} (a bug of unpin; NODE_DEBUG=unpin tells where)\n`);
  return EXIT_BUG;
}

process.on('uncaughtException', (error) => process.exit(report(error)));
// Whoever read our output has enough of it: `unpin boot | head`.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(
    error.code === 'EPIPE'
      ? EXIT_SIGPIPE
      : report(systemError('write', 'standard output must be somewhere that can be written', error)),
  ),
);

try {
  await createProgram().parseAsync();
} catch (error) {
  process.exitCode = report(error);
  // After a bug nothing of what still runs can be trusted.
  if (process.exitCode === EXIT_BUG) process.exit();
}
