import { Command } from 'commander';
import { formatSize } from './args.js';
import { bootGuests } from './bootguests.js';
import { HostRun } from './hostrun.js';
import { StopSignals } from './stop.js';
import { table } from './table.js';
import { FRAMES_BYTES, type Locking, lockAll, SWAP_BYTES, ThreeUsers, USERS_BYTES } from './threeusers.js';
import { UsersProgress } from './usersprogress.js';

/** `unpin start`, and `npm start`: the proposal's before and after, and then what it is for: guests. In half a minute. */

const MIB = 2 ** 20;
const ARENA_BYTES = 16 * MIB;
const SHOWN_CLEARS = 6;
const GUESTS = 3;
const GUEST_RAM = 32 * MIB;
const GUEST_FRAMES = 40 * MIB;

export function startCommand(): Command {
  return new Command('start')
    .description('show what pte notifiers are for: three users, and then three guests, in a third of their memory')
    .action(async () => {
      process.exitCode = await start();
    });
}

async function start(): Promise<number> {
  const startMs = performance.now();
  say(`${bold('Unpin')}: virtual memory for TypeScript hosts, with pte notifiers`);
  await before();
  await after();
  const code = await guests();
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  if (code === 0) say(`\nEverything was verified. ${seconds} s`);
  return code;
}

/** Who keeps page tables of its own must pin, as long as nobody tells it that a pte goes. */
async function before(): Promise<void> {
  const all = USERS_BYTES.reduce((sum, lenBytes) => sum + lenBytes, 0);
  const host = formatSize(FRAMES_BYTES);
  say(`\n${bold(`1. Before: ${formatSize(all)} of three users, pinned in the ${host} of one host`)}\n`);
  await withHost(async ({ host }) => {
    for (const locking of await lockAll(host)) say(lockingText(locking));
  });
}

function lockingText({ user, lenBytes, refusal }: Locking): string {
  const what = `  user ${user + 1}  mlock ${formatSize(lenBytes)}`;
  return refusal === undefined ? `${what}  ok` : `${what}  refused\n  ${refusal.message}`;
}

/** Told of each pte that goes, the same users pin nothing. */
async function after(): Promise<void> {
  say(`\n${bold('2. After: the same users, told by pte notifiers')}\n`);
  await withHost(async (run, signals) => {
    const progress = new UsersProgress();
    let nrShown = 0;
    const users = new ThreeUsers(run.host, {
      turn: () => new Promise((resolve) => setImmediate(resolve)),
      onClear: (user, address) => {
        if (nrShown++ < SHOWN_CLEARS) progress.log(`  user ${user + 1}  clear(vma, 0x${address.toString(16)})`);
      },
      onPass: (user, pass) => progress.passed(user, pass),
    });
    signals.onStop(() => {
      progress.stop();
      process.exit(signals.exitCode);
    });
    progress.start(users.users);
    try {
      await users.run();
    } finally {
      progress.stop();
    }
    say(resultText(users, run));
    users.destroy();
  });
}

function resultText({ users }: ThreeUsers, { host }: HostRun): string {
  const rows = users.map(({ name, ram, verifiedBytes }) => [
    name,
    formatSize(ram.lenBytes),
    formatSize(ram.mm.residentPeakPages * 4096),
    String(ram.stats.faults),
    String(ram.stats.majorFaults),
    String(ram.stats.clears),
    formatSize(verifiedBytes),
  ]);
  const head = ['', 'memory', 'peak', 'faults', 'waited', 'clears', 'verified'];
  const stats = host.stats();
  return (
    `\n${table([head, ...rows])}\n\n  ${formatSize(stats.frames * 4096)} of frames; swapped out ${stats.swapOutPages} pages, ` +
    `in ${stats.swapInPages}; pinned ${stats.pinnedFrames}`
  );
}

async function guests(): Promise<number> {
  const all = formatSize(GUESTS * GUEST_RAM);
  say(`\n${bold(`3. What it is for: ${GUESTS} RISC-V guests with ${all} of RAM in ${formatSize(GUEST_FRAMES)}`)}\n`);
  const options = { guests: GUESTS, ram: GUEST_RAM, frames: GUEST_FRAMES, swapSize: 4 * GUESTS * GUEST_RAM };
  const rest = { smp: 1, console: 'ttyS0', pin: false, keyboard: false } as const;
  return bootGuests({ ...options, ...rest, disk: [], net: [], share: [] }, (text) => process.stdout.write(text));
}

async function withHost(work: (run: HostRun, signals: StopSignals) => Promise<void>): Promise<void> {
  const signals = new StopSignals();
  const onSwapError = (message: string) => process.stderr.write(`unpin: ${message}\n`);
  const run = await HostRun.open({
    frames: FRAMES_BYTES,
    arenaBytes: ARENA_BYTES,
    swapSize: SWAP_BYTES,
    onSwapError,
  });
  try {
    await work(run, signals);
  } finally {
    await run.close();
    signals.remove();
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function bold(text: string): string {
  return process.stdout.isTTY && !process.env.NO_COLOR ? `\x1b[1m${text}\x1b[0m` : text;
}
