import { median, option } from './lib/common.js';
import { measurePairs, pairsMissing } from './lib/guestpairs.js';

/**
 * Debian's kernel and our own programs in a guest, on Unpin and on QEMU TCG, interleaved in one run.
 *
 *   npm run bench -- linux [--runs 3] [--guest DIR] [--commands 'true,bench-int,bench-fp,bench-mem'] [--ram 256M] [--frames 288M]
 *
 * DIR is what `scripts/debian-guest` made, with our programs in it (`guests/build --linux`). Prints for each figure the
 * medians of both in seconds, the ratio with its spread (least and greatest of the pairs), and millions of guest
 * instructions a second on Unpin; then the greatest resident memory of the process, less the frames that were used.
 */

const guest = option('guest', 'debian-guest');
const missing = pairsMissing(guest);
if (missing !== undefined) {
  process.stderr.write(`bench: ${missing}\n`);
  process.exit(2);
}
const { pairs, overheads } = await measurePairs({
  guest,
  commands: option('commands', 'true,bench-int,bench-fp,bench-mem').split(','),
  runs: Number(option('runs', '3')),
  ram: option('ram', '256M'),
  frames: option('frames', '288M'),
});

process.stdout.write('figure                unpin s    qemu s   ratio  (least to greatest)   M instructions/s\n');
for (const [name, pair] of pairs) {
  const ratios = pair.unpin.map((seconds, i) => seconds / pair.qemu[i]!);
  const cells = [median(pair.unpin).toFixed(3).padStart(8), median(pair.qemu).toFixed(3).padStart(9)];
  const spread = `(${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`.padEnd(22);
  const mips = pair.mips.length === 0 ? '' : median(pair.mips).toFixed(0).padStart(8);
  process.stdout.write(
    `${name.padEnd(20)} ${cells.join(' ')} ${median(ratios).toFixed(2).padStart(7)}  ${spread}${mips}\n`,
  );
}
const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
process.stdout.write(
  `resident memory less the frames used: median ${mib(median(overheads))} MiB, greatest ${mib(Math.max(...overheads))} MiB\n`,
);
