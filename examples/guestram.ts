import { GuestRam, Host } from 'unpin';
import { openFileSwap } from 'unpin/node';

// A host of 16 MiB. What does not fit goes to a file.
const MiB = 2 ** 20;
const swap = await openFileSwap('guestram.swap', { sizeBytes: 128 * MiB });
const host = new Host({ frames: (16 * MiB) / 4096, swap });

// Two machines of 48 MiB each; nothing of them is pinned.
const machines = ['left', 'right'].map((name) => GuestRam.create(host, { name, lenBytes: 48 * MiB }));

// What their emulators do all day: store, and load what was stored.
let wrong = 0;
for (const [k, ram] of machines.entries()) {
  for (let addr = 0; addr < ram.lenBytes; addr += 4) ram.writeUint32(addr, addr + k);
}
for (const [k, ram] of machines.entries()) {
  for (let addr = 0; addr < ram.lenBytes; addr += 4) if (ram.readUint32(addr) !== addr + k) wrong++;
}

const { framesPeak, swapInPages, pinnedFrames } = host.stats();
console.log(
  `96 MiB in ${framesPeak / 256} MiB: ${swapInPages} pages came back, ${pinnedFrames} pinned, ${wrong} words wrong`,
);
await host.stop();
