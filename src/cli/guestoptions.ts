import { type Command, Option } from 'commander';
import { KernelError } from '../base/index.js';
import { MAX_HELD_PAGES, MIN_FRAMES, PAGE_SIZE } from '../mm/index.js';
import { formatSize, parseCount, parseSeconds, parseSize } from './args.js';
import { parseDisk } from './disks.js';

/** Options of the verbs that run guests. */

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

/** Of all of them: what is one host's, and how long and with what report. */
export interface HostOptions {
  guests: number;
  frames: number;
  swap?: string;
  swapSize: number;
  pin: boolean;
  timeout?: number;
  json?: string;
}

export interface HostDefaults {
  readonly guests: number;
  readonly frames: string;
  /** What --pin does. */
  readonly pin: string;
}

export function addHostOptions(command: Command, defaults: HostDefaults): Command {
  return command
    .addOption(count('--guests <n>', 'guests', defaults.guests, 64))
    .addOption(
      size('--frames <size>', 'host memory for all guests together', defaults.frames, MIN_FRAMES * PAGE_SIZE, 3 * GIB),
    )
    .option('--swap <file>', 'swap file: new or empty, removed at the end (default: a temporary file)')
    .addOption(size('--swap-size <size>', 'size of the swap file', '1G', MIB, 64 * GIB))
    .option('--pin', defaults.pin, false)
    .addOption(new Option('--timeout <seconds>', 'end guests that run longer').argParser(parseSeconds))
    .option('--json <file>', 'write the report as JSON');
}

export function disks(byDefault: string): Option {
  const what =
    'virtio disk from a raw image, repeatable: vda, vdb; ro: not written; overlay: what a guest writes is dropped at the end';
  return new Option('--disk <file[,ro|,overlay]>', what).argParser(parseDisk).default([], byDefault);
}

export function size(flags: string, what: string, value: string, min: number, max: number): Option {
  const parse = parseSize(min, max);
  return new Option(flags, what).argParser(parse).default(parse(value), value);
}

export function count(flags: string, what: string, value: number, max: number): Option {
  return new Option(flags, what).argParser(parseCount(1, max)).default(value);
}

/** Each vCPU may hold the pages of one instruction while the host still needs its own (N26). */
export function checkFrames(verb: string, frames: number, guests: number, vcpus: number): void {
  const least = (MIN_FRAMES + (guests * vcpus - 1) * MAX_HELD_PAGES) * PAGE_SIZE;
  if (frames >= least) return;
  const each = vcpus === 1 ? '' : ` of ${vcpus} vCPUs`;
  const what = guests === 1 ? `a guest${each}` : `${guests} guests${each}`;
  const right = `must be at least ${formatSize(least)} for ${what} to make progress`;
  throw new KernelError('EINVAL', verb, `--frames ${formatSize(frames)} ${right}`);
}

/** The command line of guest `index`, of a kernel of ours. Each has a seed of its own, so that no two hold the same pages; one in `append` comes before it and counts. */
export function ownBootargs(append: string | undefined, index: number): string {
  return `${append ?? 'passes=2'} seed=${index + 1}`;
}
