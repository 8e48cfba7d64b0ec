/**
 * What GuestRam costs an emulator: `npm run bench -- guestram [ACCESS | EMULATOR | FAULT]...`; all three without a name.
 *
 * Access: nanoseconds a load or store beside the same loop over a plain typed array. Emulator: rp2040js sorting, with its own
 * memory, on a GuestRam that fits, and on one with a third of the frames. Fault: a page read back from swap.
 *
 * The contestants take turns in every round; printed are medians, and in brackets the quartiles.
 */

import { RP2040 } from 'rp2040js';
import { GuestRam, Host, MemorySwap, type SwapDevice } from 'unpin';
import { openFileSwap } from 'unpin/node';
import { BigPico } from '../examples/rp2040/bigpico.js';
import { expectedOutput, runSort } from '../examples/rp2040/run.js';
import { quantile } from './lib/common.js';

const PAGE = 4096;
const MIB = 2 ** 20;

type Contestants = Record<string, () => void | Promise<void>>;

/** Seconds that each contestant took, a list by name, of `rounds` rounds after one that does not count. */
async function compete(rounds: number, contestants: Contestants): Promise<Record<string, number[]>> {
  const seconds: Record<string, number[]> = {};
  for (let round = -1; round < rounds; round++) {
    for (const [name, run] of Object.entries(contestants)) {
      const before = process.cpuUsage();
      await run();
      const { user, system } = process.cpuUsage(before);
      if (round >= 0) (seconds[name] ??= []).push((user + system) / 1e6);
    }
  }
  return seconds;
}

function spread(values: number[], digits: number): string {
  const [low, mid, high] = [0.25, 0.5, 0.75].map((q) => quantile(values, q).toFixed(digits));
  return `${mid!.padStart(7)} [${low}, ${high}]`.padEnd(24);
}

/** The two sides of the access benchmark: an object of the same shape over a plain array. */
interface Memory {
  readUint8(addr: number): number;
  readInt32(addr: number): number;
  writeUint32(addr: number, value: number): void;
}

class PlainMemory implements Memory {
  private readonly u8: Uint8Array;
  private readonly i32: Int32Array;

  constructor(lenBytes: number) {
    this.u8 = new Uint8Array(lenBytes);
    this.i32 = new Int32Array(this.u8.buffer);
  }

  readUint8(addr: number): number {
    return this.u8[addr]!;
  }

  readInt32(addr: number): number {
    return this.i32[addr >>> 2]!;
  }

  writeUint32(addr: number, value: number): void {
    this.i32[addr >>> 2] = value;
  }
}

const NR_ACCESSES = 4e6;
/** Addresses below `mask + 1`. `next` is a generator that misses nothing but the caches. */
const LOOPS: Record<string, string> = {
  'load byte, sequential': 'x = (x + m.readUint8(i & mask)) | 0',
  'load byte, random': 's = (Math.imul(s, 1664525) + 1013904223) | 0; x = (x + m.readUint8((s >>> 6) & mask)) | 0',
  'load word, sequential': 'x = (x + m.readInt32((i << 2) & mask)) | 0',
  'load word, random': 's = (Math.imul(s, 1664525) + 1013904223) | 0; x = (x + m.readInt32((s >>> 6) & mask & ~3)) | 0',
  'load word, each needs the last': 'x = m.readInt32((x + (i << 2)) & mask & ~3)',
  'store word, sequential': 'm.writeUint32((i << 2) & mask, i)',
};

/** WHY: a source text of its own for each contestant, or V8 shares their type feedback and inlines neither. */
function loop(name: string, body: string, who: string): (m: Memory, n: number, mask: number) => number {
  const source = `let x = 0, s = 1; for (let i = 0; i < n; i++) { ${body}; } return x; // ${name} ${who}`;
  return new Function('m', 'n', 'mask', source) as (m: Memory, n: number, mask: number) => number;
}

async function benchAccess(): Promise<void> {
  const lenBytes = 64 * MIB;
  const host = new Host({ frames: lenBytes / PAGE + 1024 });
  const ram = GuestRam.create(host, { lenBytes });
  const plain = new PlainMemory(lenBytes);
  for (let addr = 0; addr < lenBytes; addr += 4) {
    plain.writeUint32(addr, addr);
    ram.writeUint32(addr, addr);
  }
  console.log(`ns an access             ${' '.repeat(22)}plain array             GuestRam                difference`);
  for (const size of [MIB, lenBytes]) {
    for (const [name, body] of Object.entries(LOOPS)) {
      const what = `${name} in ${size / MIB} MiB`;
      const [a, b] = [loop(what, body, 'plain'), loop(what, body, 'ram')];
      const seconds = await compete(15, {
        plain: () => void a(plain, NR_ACCESSES, size - 1),
        ram: () => void b(ram, NR_ACCESSES, size - 1),
      });
      const ns = (list: number[]) => list.map((s) => (s * 1e9) / NR_ACCESSES);
      const difference = ns(seconds.ram!).map((t, i) => t - ns(seconds.plain!)[i]!);
      console.log(
        `${what.padEnd(46)} ${spread(ns(seconds.plain!), 2)}${spread(ns(seconds.ram!), 2)}${spread(difference, 2)}`,
      );
    }
  }
  await host.stop();
}

/** The emulator as it comes, but for the size of its RAM. */
function plainPico(ramBytes: number): RP2040 {
  const mcu = new RP2040();
  const sram = new Uint8Array(ramBytes);
  return Object.assign(mcu, { sram, sramView: new DataView(sram.buffer) });
}

async function benchEmulator(): Promise<void> {
  const nrWords = 192 * 1024;
  const ramBytes = MIB;
  const expected = expectedOutput(nrWords);
  let cycles = 0;
  let swapIns = 0;
  const sort = (mcu: RP2040) => {
    const result = runSort(mcu, ramBytes, nrWords);
    if (result.printed !== expected) throw new Error(`wrong: ${result.printed}`);
    cycles = result.cycles;
  };
  const onGuestRam = (frames: number) => async () => {
    const host = new Host({ frames, swap: new MemorySwap({ sizeBytes: 2 * ramBytes }) });
    sort(new BigPico(GuestRam.create(host, { lenBytes: ramBytes })));
    swapIns = host.stats().swapInPages;
    await host.stop();
  };
  const usedFrames = Math.ceil((nrWords * 4) / PAGE) + 1;
  const seconds = await compete(7, {
    'its own memory': () => sort(plainPico(ramBytes)),
    'GuestRam, all fits': onGuestRam(usedFrames + 64),
    'GuestRam, a third of the frames': onGuestRam(Math.round(usedFrames / 3)),
  });
  console.log(
    `rp2040js sorts ${nrWords} words: ${(cycles / 1e6).toFixed(0)} M cycles; ${swapIns} pages read from swap with a third`,
  );
  for (const [name, list] of Object.entries(seconds)) {
    const ratio = list.map((s, i) => s / seconds['its own memory']![i]!);
    console.log(
      `${name.padEnd(32)} ${spread(
        list.map((s) => s * 1e3),
        0,
      )} ms CPU, ${spread(ratio, 3)} times its own memory`,
    );
  }
}

async function benchFault(): Promise<void> {
  const nrPages = 4096;
  const open: Record<string, () => Promise<SwapDevice>> = {
    memory: async () => new MemorySwap({ sizeBytes: 2 * nrPages * PAGE }),
    file: () => openFileSwap('bench-guestram.swap', { sizeBytes: 2 * nrPages * PAGE }),
  };
  for (const [name, device] of Object.entries(open)) {
    const host = new Host({ frames: nrPages / 4, swap: await device() });
    const ram = GuestRam.create(host, { lenBytes: nrPages * PAGE });
    for (let p = 0; p < nrPages; p++) ram.writeUint32(p * PAGE, p);
    let seed = 1;
    const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 8;
    const contestants: Contestants = {
      'read, sequential': () => {
        for (let p = 0; p < nrPages; p++) ram.readUint8(p * PAGE);
      },
      'read, random (a quarter hits)': () => {
        for (let k = 0; k < nrPages; k++) ram.readUint8((random() % nrPages) * PAGE);
      },
      'write, sequential': () => {
        for (let p = 0; p < nrPages; p++) ram.writeUint32(p * PAGE, p);
      },
    };
    for (const [what, list] of Object.entries(await compete(9, contestants))) {
      const ns = list.map((s) => (s * 1e9) / nrPages);
      console.log(`${`swap in ${name}: ${what}`.padEnd(46)} ${spread(ns, 0)} ns CPU a page touched`);
    }
    await host.stop();
  }
}

const BENCHES: Record<string, () => Promise<void>> = {
  access: benchAccess,
  emulator: benchEmulator,
  fault: benchFault,
};
const wanted = process.argv.slice(2);
for (const name of wanted.length > 0 ? wanted : Object.keys(BENCHES)) {
  if (BENCHES[name] === undefined)
    throw new Error(`bench guestram: '${name}' must be one of ${Object.keys(BENCHES).join(', ')}`);
  await BENCHES[name]();
}
