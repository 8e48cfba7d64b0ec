import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { LguestDevice } from '../lguest/index.js';
import { MemoryDisk, VirtioBlk } from '../machine/index.js';
import { nodeEnvironment } from '../node/index.js';
import { LguestGuest } from '../vmm/index.js';
import { toJson } from './bootreport.js';
import { Disks } from './disks.js';
import { readInput, refuseSameFile, releaseInput } from './files.js';
import { checkFrames, MIB, ownBootargs } from './guestoptions.js';
import { type GuestPlace, runGuests, toStderr } from './guestrun.js';
import type { LguestOptions } from './lguest.js';

/** The work of `unpin lguest`: a launcher for each guest, each with an mm and a memlock limit of its own; guestrun.ts has them run. */

/** Arena of the host memory: decoded code, and a hart for each guest; shadow tables lie elsewhere. */
const ARENA_BASE = 32 * MIB;
const ARENA_PER_GUEST = MIB;
const OUR_GUEST = new URL('../../guests/images/forkhog.img', import.meta.url);
const MEMORY_DISK_BYTES = 4 * MIB;

/** Runs the guests to their ends; resolves with the command's exit code. Throws KernelError for what cannot work. */
export async function runLguests(options: LguestOptions): Promise<number> {
  checkFrames('lguest', options.frames, options.guests, 1);
  refuseSameFile(filesOf(options));
  const kernel = options.kernel === undefined ? readFileSync(OUR_GUEST) : readInput('kernel', options.kernel);
  const disks = await Disks.open('lguest', options.disk, options.guests, toStderr);
  try {
    const run = {
      ...options,
      arenaBytes: ARENA_BASE + options.guests * ARENA_PER_GUEST,
      listening: options.kernel !== undefined,
      outputs: [{ what: 'report', path: options.json, text: toJson }],
      tell: toStderr,
    };
    return await runGuests(run, (place) => launch(place, options, kernel, disks));
  } finally {
    await disks.close();
  }
}

function filesOf({ kernel, swap, json, disk }: LguestOptions): Record<string, string | undefined> {
  return { '--kernel': kernel, ...Disks.filesOf(disk), '--swap': swap, '--json': json };
}

async function launch(place: GuestPlace, options: LguestOptions, kernel: Uint8Array, disks: Disks): Promise<void> {
  const lguest = new LguestDevice(place.host, nodeEnvironment(), { unixMs: () => Date.now(), blockWhenAlone: true });
  for (let i = 0; i < options.guests; i++) {
    const name = place.nameOf(i);
    const guest = await LguestGuest.create({
      name,
      lguest,
      ramBytes: options.ram,
      kernel,
      bootargs: options.kernel === undefined ? ownBootargs(options.append, i) : (options.append ?? ''),
      gunzip: (bytes) => gunzipSync(bytes),
      rlimitMemlock: options.memlock,
      pin: options.pin,
      console: (bytes) => place.put(i, bytes),
      devices: devicesOf(options, disks, (message) => place.complain(`${name}: ${message}`)),
    });
    place.add(guest);
  }
  releaseInput(kernel);
}

function devicesOf({ disk }: LguestOptions, disks: Disks, onError: (message: string) => void): VirtioBlk[] {
  return disk.length > 0 ? disks.devices(onError) : [new VirtioBlk({ backend: new MemoryDisk(MEMORY_DISK_BYTES) })];
}
