import { Command, Option } from 'commander';
import { parseSize } from './args.js';
import { bootGuests } from './bootguests.js';
import type { DiskOption } from './disks.js';
import { addHostOptions, count, disks, GIB, type HostOptions, MIB, size } from './guestoptions.js';
import { type NetOption, parseNet } from './nets.js';
import { parseRdma, type RdmaOption } from './rnics.js';
import { parseShare, type ShareOption } from './shares.js';

/** `unpin boot`: Linux guests, or our own, in memory that can go away at any time. */

export interface BootOptions extends HostOptions {
  kernel?: string;
  initrd?: string;
  append?: string;
  disk: DiskOption[];
  net: NetOption[];
  share: ShareOption[];
  rdma?: RdmaOption;
  console: 'ttyS0' | 'hvc0';
  /** Bytes, or true without a size. */
  balloon?: number | true;
  ram: number;
  smp: number;
  threads?: boolean;
  trace?: string;
  /** Whether stdin is the guests' keyboard; false for who shows guests and reads nothing. */
  keyboard?: boolean;
}

const HELP = `
On a terminal:
  Ctrl-a h tells the keys, Ctrl-a x ends the run, Ctrl-a c is the monitor (info mem, info notifiers, stop, cont, ...)

Examples:
  unpin boot
      our own guest, which verifies its memory
  unpin boot --kernel Image --initrd initrd.gz --smp 4
      Linux on four vCPUs; guests/README.md tells how to get one
  unpin boot --kernel Image --initrd initrd.gz --append 'console=ttyS0 root=/dev/vda' --disk debian.img,overlay --net user,hostfwd=tcp:8022:22
      Debian from its disk, of which nothing is written; its port 22 is 127.0.0.1:8022
`;

export function bootCommand(): Command {
  const command = new Command('boot')
    .description('boot guests whose memory is demand paged')
    .option('--kernel <file>', 'RISC-V kernel: Image (raw or gzip) or ELF (default: our own guest)')
    .option('--initrd <file>', 'initial RAM disk')
    .option('--append <str>', 'kernel command line')
    .addOption(disks('none'))
    .addOption(nets())
    .addOption(shares())
    .addOption(rdma())
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
    .option('--no-threads', 'all vCPUs on one thread');
  const pin = 'lock all guest RAM, as before notifiers (ENOMEM where it does not fit)';
  return addHostOptions(command, { guests: 1, frames: '64M', pin })
    .option('--trace <file>', 'write a Chrome trace (opens in Perfetto)')
    .addHelpText('after', HELP)
    .action(async (options: BootOptions) => {
      process.exitCode = await bootGuests(options);
    });
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

function rdma(): Option {
  const what = "NIC with a doorbell, connected to an 'unpin rdma server'; our guest rnichog has its driver";
  return new Option('--rdma <[host:]port>', what).argParser(parseRdma);
}
