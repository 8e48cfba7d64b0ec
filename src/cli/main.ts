#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { KernelError } from '../base/index.js';
import { bootCommand } from './boot.js';

/**
 * The command `unpin`. Each verb is a file beside this one; here is only what they share: bad input gets one clear line
 * and exit code 2, never a stack trace.
 */

const EXIT_BAD_INPUT = 2;

function createProgram(): Command {
  const program = new Command('unpin');
  program
    .description('Virtual memory for TypeScript hosts, with pte notifiers')
    .configureOutput({ outputError: (text, write) => write(`unpin: ${text.replace(/^error: /, '')}`) })
    .exitOverride();
  for (const command of [bootCommand()]) {
    command.copyInheritedSettings(program);
    program.addCommand(command);
  }
  return program;
}

/** Exit code of a failed run; says why, once. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_BAD_INPUT;
  if (error instanceof KernelError) {
    process.stderr.write(`unpin: ${error.message}\n`);
    return EXIT_BAD_INPUT;
  }
  throw error;
}

try {
  await createProgram().parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
