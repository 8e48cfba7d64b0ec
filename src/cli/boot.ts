import { Command, Option } from 'commander';
import { parseCount, parseSeconds, parseSize } from './args.js';
import { bootGuests } from './bootguests.js';
import { type DiskOption, parseDisk } from './disks.js';
import { type NetOption, parseNet } from './nets.js';
import { parseShare, type ShareOption } from './shares.js';

/** `unpin boot`: Linux guests, or our own, in memory that can go away at any time. */

export interface BootOptions {
  kernel?: string;
  initrd?: string;
  append?: string;
  disk: DiskOption[];
  net: NetOption[];
  share: ShareOption[];
  console: 'ttyS0' | 'hvc0';
  /** Bytes, or true without a size. */
  balloon?: number | true;
  ram: number;
  smp: number;
  threads?: boolean;
  guests: number;
  frames: number;
  swap?: string;
  swapSize: number;
  pin: boolean;
  timeout?: number;
  json?: string;
  trace?: string;
  /** Whether stdin is the guests' keyboard; false for who shows guests and reads nothing. */
  keyboard?: boolean;
}

const MIB = 2 ** 20;
const GIB = 2 ** 30;

export function bootCommand(): Command {
  return new Command('boot')
    .description('boot guests whose memory is demand paged')
    .option('--kernel <file>', 'RISC-V kernel: Image (raw or gzip) or ELF (default: our own guest)')
    .option('--initrd <file>', 'initial RAM disk')
    .option('--append <str>', 'kernel command line')
    .addOption(disks())
    .addOption(nets())
    .addOption(shares())
    .addOption(
      new Option('--console <device>', 'console: the UART or virtio-console')
        .choices(['ttyS0', 'hvc0'])
        .default('ttyS0'),
    )
    .addOption(
      new Option(
        '--balloon [size]',
        'virtio-balloon: what a guest reports free goes back to the host, and so much is asked of each',
      ).argParser(parseSize(0, 2 * GIB)),
    )
    .addOption(size('--ram <size>', 'RAM that each guest believes it has', '128M', MIB, 2 * GIB))
    .addOption(count('--smp <n>', 'vCPUs of each guest', 1, 16))
    .option('--threads', 'each vCPU in a thread of its own (default: where there is more than one vCPU)')
    .option('--no-threads', 'all vCPUs on one thread')
    .addOption(count('--guests <n>', 'guests', 1, 64))
    .addOption(size('--frames <size>', 'host memory for all guests together', '64M', 64 * 1024, 3 * GIB))
    .option('--swap <file>', 'swap file: new or empty, removed at the end (default: a temporary file)')
    .addOption(size('--swap-size <size>', 'size of the swap file', '1G', MIB, 64 * GIB))
    .option('--pin', 'lock all guest RAM, as before notifiers (ENOMEM where it does not fit)', false)
    .addOption(new Option('--timeout <seconds>', 'end guests that run longer').argParser(parseSeconds))
    .option('--json <file>', 'write the report as JSON')
    .option('--trace <file>', 'write a Chrome trace (opens in Perfetto)')
    .action(async (options: BootOptions) => {
      process.exitCode = await bootGuests(options);
    });
}

function disks(): Option {
  const what =
    'virtio disk from a raw image, repeatable: vda, vdb; ro: not written; overlay: what a guest writes is dropped at the end';
  return new Option('--disk <file[,ro|,overlay]>', what).argParser(parseDisk).default([], 'none');
}

function nets(): Option {
  const what =
    "network card, repeatable: 'user' leads to sockets of the host (10.0.2.2 is its loopback; outgoing=none|any for less or more), " +
    'with ports of its loopback handed to the guest (the next guest has the next port); ' +
    "'link:NAME' joins the guests of this run";
  return new Option('--net <user[,hostfwd=tcp:PORT:PORT][,outgoing=..]|link:NAME>', what)
    .argParser(parseNet)
    .default([], 'none');
}

function shares(): Option {
  const what = "folder of the host, repeatable; in the guest: mount -t virtiofs TAG /mnt (default tag 'share')";
  return new Option('--share <dir[,tag][,ro]>', what).argParser(parseShare).default([], 'none');
}

function size(flags: string, what: string, value: string, min: number, max: number): Option {
  const parse = parseSize(min, max);
  return new Option(flags, what).argParser(parse).default(parse(value), value);
}

function count(flags: string, what: string, value: number, max: number): Option {
  return new Option(flags, what).argParser(parseCount(1, max)).default(value);
}
