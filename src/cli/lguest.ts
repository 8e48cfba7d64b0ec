import { Command } from 'commander';
import type { DiskOption } from './disks.js';
import { addHostOptions, disks, GIB, type HostOptions, MIB, size } from './guestoptions.js';
import { runLguests } from './lguestguests.js';

/** `unpin lguest`: paravirtual guests, which an unprivileged user may launch, because nothing is pinned. */

export interface LguestOptions extends HostOptions {
  kernel?: string;
  append?: string;
  disk: DiskOption[];
  ram: number;
  /** RLIMIT_MEMLOCK of each launcher, bytes. */
  memlock: number;
}

export function lguestCommand(): Command {
  const command = new Command('lguest')
    .description('launch paravirtual guests that lock no memory')
    .option('--kernel <file>', 'kernel that asks by hypercalls: RISC-V Image or ELF (default: our own guest)')
    .option('--append <str>', 'kernel command line')
    .addOption(disks('4 MiB of memory for each guest'))
    .addOption(size('--ram <size>', 'memory that each guest believes it has', '64M', MIB, GIB))
    .addOption(
      size('--memlock <size>', "how much each launcher may lock; 64K is Linux's for a user", '64K', 0, 64 * GIB),
    );
  const pin = 'lock all guest memory, as in 2007 (EPERM or ENOMEM unless --memlock allows it, and it fits)';
  return addHostOptions(command, { guests: 2, frames: '32M', pin }).action(async (options: LguestOptions) => {
    process.exitCode = await runLguests(options);
  });
}
