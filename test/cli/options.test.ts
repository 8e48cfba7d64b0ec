import { expect, test } from 'vitest';
import { bootCommand } from '../../src/cli/boot.js';

/** Options of `unpin boot` that are refused as soon as they are read: the message names the value and what it must be. How the command says it: boot-refused.test.ts. */

const CASES: [string, string[], RegExp][] = [
  ['RAM below its least', ['--ram', '4K'], /'4K' must be from 1 MiB to 2 GiB/],
  ['no multiple of a page', ['--frames', '1048577'], /multiple of 4096/],
  ['no guest', ['--guests', '0'], /from 1 to 64/],
  ['half a guest', ['--guests', '1.5'], /whole number from 1 to 64/],
  ['too many vCPUs', ['--smp', '17'], /from 1 to 16/],
  ['no time', ['--timeout', '0'], /seconds above 0/],
  ['more time than a timer has', ['--timeout', '2147484'], /seconds above 0, at most 2147483/],
  ['an unknown option', ['--frobnicate'], /unknown option '--frobnicate'/],
  ['N26: too few frames for a guest', ['--frames', '252K'], /'252K' must be from 256 KiB to 3 GiB/],
  ['another kind of network', ['--net', 'tap0'], /'tap0' must be 'link:NAME' or 'user'/],
  ['a link without a name', ['--net', 'link:'], /'link:' must be 'link:NAME'/],
  ['a forward of UDP', ['--net', 'user,hostfwd=udp:1:2'], /'hostfwd=udp:1:2' in '.*' must be hostfwd=tcp/],
  ['port 0', ['--net', 'user,hostfwd=tcp:0:22'], /port 0 in 'hostfwd=tcp:0:22' must be from 1 to/],
  ['outgoing nowhere known', ['--net', 'user,outgoing=all'], /'outgoing=all' in '.*' must be/],
  ['one tag twice', ['--share', '/tmp/a,x', '--share', '/tmp,x'], /tag 'x' must be another/],
  ['a long tag', ['--share', `/tmp,${'t'.repeat(37)}`], /tag 't+' must have at most 36 bytes/],
  ['too many words', ['--share', '/tmp,a,b'], / must be DIR, DIR,TAG, DIR,ro or DIR,TAG,ro/],
  ['an unknown mode', ['--disk', 'disk.img,rw'], /disk.img,rw' must be FILE, FILE,ro or FILE,overlay/],
  ['two modes', ['--disk', 'disk.img,ro,overlay'], / must be FILE, FILE,ro or FILE,overlay/],
  ['a console that is none', ['--console', 'tty1'], /Allowed choices are ttyS0, hvc0/],
];

test.each(CASES)('%s', async (_name, args, message) => {
  let said = '';
  const command = bootCommand().exitOverride();
  command.configureOutput({ writeErr: (text) => (said += text) });
  await expect(command.parseAsync(args, { from: 'user' })).rejects.toThrow(message);
  expect(said).toMatch(message);
});
