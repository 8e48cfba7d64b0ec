import { randomBytes, randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { KernelError } from '../base/index.js';
import { Kvm } from '../kvm/index.js';
import { VirtioConsole, VirtioRng } from '../machine/index.js';
import { nodeEnvironment } from '../node/index.js';
import { BoardGuest, type BoardGuestOptions } from '../vmm/index.js';
import { formatSize } from './args.js';
import type { BootOptions } from './boot.js';
import { toJson } from './bootreport.js';
import { Disks } from './disks.js';
import { readInput, refuseSameFile, releaseInput } from './files.js';
import { checkFrames, ownBootargs } from './guestoptions.js';
import { type GuestPlace, type GuestRunOptions, runGuests, toStderr } from './guestrun.js';
import { Nets } from './nets.js';
import { Rnics } from './rnics.js';
import { Shares } from './shares.js';
import { TraceRecorder } from './trace.js';

/** The work of `unpin boot`: what it was asked for, looked at, and its guests; guestrun.ts has them run. */

/** Arena of the host memory: for a hart's state and shadow tables of each guest, and decoded code. */
const ARENA_BASE = 64 * 2 ** 20;
const ARENA_PER_GUEST = 16 * 2 ** 20;
const ARENA_PER_VCPU = 2 ** 20;
const ARENA_PER_THREAD = 12 * 2 ** 20;
/** What Linux credits as a full seed (drivers/char/random.c, BLAKE2S_HASH_SIZE). */
const RNG_SEED_BYTES = 32;
const OUR_GUEST = new URL('../../guests/images/memhog.img', import.meta.url);
const LINUX_APPEND = 'earlycon=sbi';

/** What the guests are made of, read and checked. */
interface BootInput {
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
}

/**
 * Runs the guests to their ends; resolves with the command's exit code. What there is to tell beside the consoles goes to `tell`.
 * Throws KernelError for what cannot work.
 */
export async function bootGuests(options: BootOptions, tell: (text: string) => void = toStderr): Promise<number> {
  checkFrames('boot', options.frames, options.guests, options.smp);
  refuseSameFile(filesOf(options));
  const input = readInputs(options);
  const nets = new Nets(options.net, options.guests);
  let disks: Disks | undefined;
  let shares: Shares | undefined;
  try {
    disks = await Disks.open('boot', options.disk, options.guests, tell);
    shares = await Shares.open(options.share);
    const devices = { disks, nets, shares, rnics: new Rnics(options.rdma, options.guests) };
    let trace: TraceRecorder | undefined;
    const create = async (place: GuestPlace) => {
      const guests = await createGuests({ ...place, ...devices, options, input }).catch(async (error) => {
        await devices.rnics.close();
        throw error;
      });
      if (options.trace !== undefined) trace = new TraceRecorder(place.host, guests);
    };
    const run = { ...runOptions(options, () => trace!.toJson()), tell };
    return await runGuests(run, create, (index) => nets.closeGuest(index));
  } finally {
    nets.close();
    await disks?.close();
    await shares?.close();
  }
}

function runOptions(options: BootOptions, traceText: () => string): Omit<GuestRunOptions, 'tell'> {
  return {
    ...options,
    arenaBytes: arenaBytes(options),
    listening: options.kernel !== undefined,
    outputs: [
      { what: 'report', path: options.json, text: toJson },
      { what: 'trace', path: options.trace, text: traceText },
    ],
  };
}

function filesOf(options: BootOptions): Record<string, string | undefined> {
  const { kernel, initrd, swap, json, trace, disk } = options;
  return {
    '--kernel': kernel,
    '--initrd': initrd,
    ...Disks.filesOf(disk),
    '--swap': swap,
    '--json': json,
    '--trace': trace,
  };
}

function readInputs(options: BootOptions): BootInput {
  const kernel = options.kernel === undefined ? readFileSync(OUR_GUEST) : readInput('kernel', options.kernel);
  if (options.initrd === undefined) return { kernel };
  return { kernel, initrd: readInput('initrd', options.initrd) };
}

function arenaBytes(options: BootOptions): number {
  const perVcpu = usesThreads(options) ? ARENA_PER_THREAD : ARENA_PER_VCPU;
  return ARENA_BASE + options.guests * (ARENA_PER_GUEST + options.ram / 512 + options.smp * perVcpu);
}

/** One vCPU alone is fastest where the devices are; several want to run at once. */
function usesThreads({ threads, smp, guests }: BootOptions): boolean {
  return threads ?? smp * guests > 1;
}

interface GuestParts extends GuestPlace {
  readonly options: BootOptions;
  readonly input: BootInput;
  readonly disks: Disks;
  readonly nets: Nets;
  readonly shares: Shares;
  readonly rnics: Rnics;
}

async function createGuests(parts: GuestParts): Promise<BoardGuest[]> {
  const { host, options, input, add } = parts;
  const kvm = new Kvm(host, nodeEnvironment(), { blockWhenAlone: true });
  const guests: BoardGuest[] = [];
  for (let i = 0; i < options.guests; i++) {
    guests.push(await BoardGuest.create(await guestOptions(parts, kvm, i)));
    add(guests[i]!);
  }
  for (const bytes of Object.values(input)) releaseInput(bytes);
  return guests;
}

async function guestOptions(parts: GuestParts, kvm: Kvm, index: number): Promise<BoardGuestOptions> {
  const { host, options, input, complain } = parts;
  const name = parts.nameOf(index);
  const console = (bytes: Uint8Array) => parts.put(index, bytes);
  return {
    name,
    kvm,
    host,
    ramBytes: options.ram,
    nrVcpus: options.smp,
    threads: usesThreads(options),
    ...input,
    bootargs: bootargs(options, index),
    rngSeed: randomBytes(RNG_SEED_BYTES),
    pin: options.pin,
    gunzip: (bytes) => gunzipSync(bytes),
    console,
    ...(await guestDevices(parts, index, console, (message) => complain(`${name}: ${message}`))),
    unixMs: () => Date.now(),
    ...balloonOf(options),
    ...parts.rnics.forGuest(index),
    onDeviceBroken: complain,
  };
}

/** Refused where it could give nothing back, or not so much. */
function balloonOf({ balloon, pin, ram }: BootOptions): Pick<BoardGuestOptions, 'balloon'> {
  if (balloon === undefined) return {};
  if (pin) throw new KernelError('EINVAL', 'boot', '--balloon gives memory back, and --pin keeps it: choose one');
  const targetBytes = balloon === true ? 0 : balloon;
  if (targetBytes < ram) return { balloon: { targetBytes } };
  const what = `--balloon ${formatSize(targetBytes)} must be less than the ${formatSize(ram)} of RAM that a guest has`;
  throw new KernelError('EINVAL', 'boot', what);
}

/** Where there is PCI, there is a random number generator too. */
async function guestDevices(
  { options, disks, nets, shares }: GuestParts,
  index: number,
  sink: (bytes: Uint8Array) => void,
  onError: (message: string) => void,
): Promise<Pick<BoardGuestOptions, 'devices' | 'hvc'>> {
  const hvc = options.console === 'hvc0' ? { hvc: new VirtioConsole({ sink }) } : {};
  const devices = [...disks.devices(onError), ...(await nets.devices(index)), ...(await shares.devices())];
  if (devices.length === 0 && options.console !== 'hvc0') return hvc;
  return { ...hvc, devices: [...devices, new VirtioRng((bytes) => randomFillSync(bytes))] };
}

function bootargs({ kernel, append, console }: BootOptions, index: number): string {
  if (kernel === undefined) return ownBootargs(append, index);
  return append ?? `console=${console} ${LINUX_APPEND}`;
}
