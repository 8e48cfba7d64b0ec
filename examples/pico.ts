import { GuestRam, Host } from 'unpin';
import { openFileSwap } from 'unpin/node';
import { BigPico } from './rp2040/bigpico.js';
import { expectedOutput, runSort } from './rp2040/run.js';

/**
 * A Raspberry Pi Pico with 4 MiB of RAM in 1 MiB of memory: rp2040js runs a program that sorts 3 MiB of words.
 * Run: npm run build && node scripts/run-ts.mjs examples/pico.ts
 */
const MiB = 2 ** 20;
const nrWords = (3 * MiB) / 4;

const host = new Host({ frames: 256, swap: await openFileSwap('pico.swap', { sizeBytes: 16 * MiB }) });
const ram = GuestRam.create(host, { lenBytes: 4 * MiB });

const { printed, cycles } = runSort(new BigPico(ram), ram.lenBytes, nrWords);
process.stdout.write(printed);

const { framesPeak, swapInPages, swapOutPages, pinnedFrames } = host.stats();
console.log(
  `${(cycles / 1e6).toFixed(0)} million cycles; at most ${framesPeak} frames for ${ram.lenBytes / 4096} pages;`,
);
console.log(`${swapOutPages} pages went to the file, ${swapInPages} came back, ${pinnedFrames} were pinned`);
await host.stop();
if (printed !== expectedOutput(nrWords)) throw new Error(`it must print: ${expectedOutput(nrWords)}`);
