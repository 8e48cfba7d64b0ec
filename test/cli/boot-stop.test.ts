import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { boot, Command, MAIN, testFolder, unpin } from './command.js';
import { ENDLESS, imageOf } from './kernels.js';

/** Whatever a guest does, signals and --timeout end it, the report is told, and no swap file stays. */

const folder = testFolder('stop');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

let next = 0;
function swapPath(): string {
  return path.join(folder, `swap${next++}`);
}

function endless(name: string): string[] {
  const kernel = path.join(folder, `${name.replaceAll(' ', '-')}.img`);
  fs.writeFileSync(kernel, imageOf(ENDLESS[name]!));
  return ['--kernel', kernel, '--ram', '8M'];
}

async function untilExists(file: string): Promise<void> {
  while (!fs.existsSync(file)) await new Promise((resolve) => setTimeout(resolve, 20));
}

const SIGNALS: ['SIGINT' | 'SIGTERM' | 'SIGHUP', number][] = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
];

describe.each(Object.keys(ENDLESS))('a guest in %s', (name) => {
  test('--timeout ends it', async () => {
    const json = path.join(folder, `${name}.json`);
    const { code, stderr } = await boot([...endless(name), '--timeout', '0.3', '--json', json]);
    expect(stderr).toContain('unpin: guest0: timeout: still running after 0.3 s');
    expect(JSON.parse(fs.readFileSync(json, 'utf8')).guests[0].exit).toBe('timeout');
    expect(code).toBe(1);
  });

  // One signal for each guest, and all of them once.
  test.each(name === 'a tight loop' ? SIGNALS : SIGNALS.slice(0, 1))('%s ends it', async (signal, code) => {
    const swap = swapPath();
    const command = unpin(['boot', ...endless(name), '--swap', swap]);
    await untilExists(swap);
    await new Promise((resolve) => setTimeout(resolve, 300));
    command.process.kill(signal);
    const result = await command.done;
    expect(result.stderr).toContain(`unpin: guest0: killed: ended by ${signal}`);
    expect([result.code, result.hung, fs.existsSync(swap)]).toEqual([code, false, false]);
  });
});

test('guests in tight loops share the thread', async () => {
  const json = path.join(folder, 'fair.json');
  await boot([...endless('a tight loop'), '--guests', '3', '--no-threads', '--timeout', '1', '--json', json]);
  const { guests } = JSON.parse(fs.readFileSync(json, 'utf8'));
  const counts: number[] = guests.map((g: { instructions: number }) => g.instructions);
  expect(Math.min(...counts)).toBeGreaterThan(Math.max(...counts) / 4);
});

test('a bug is one line and exit code 70, and leaves no swap file', async () => {
  const swap = swapPath();
  const bug = path.join(folder, 'bug.mjs');
  // Not before the command runs guests: then their swap file is there.
  const script = `import fs from 'node:fs';
    setInterval(() => { if (fs.existsSync('${swap}')) throw new TypeError('first line\\nsecond'); }, 50);`;
  fs.writeFileSync(bug, script);
  const env = { NODE_OPTIONS: `--import "${bug}"`, NODE_DEBUG: '' };
  const { code, stderr, hung } = await boot([...endless('a tight loop'), '--swap', swap], { env });
  expect(stderr).toBe('unpin: unexpected: first line second (a bug of unpin; NODE_DEBUG=unpin tells where)\n');
  expect([code, hung, fs.existsSync(swap)]).toEqual([70, false, false]);
});

test('guests that swap are ended in the middle of it', async () => {
  const swap = swapPath();
  const json = `${swap}.json`;
  const args = ['boot', '--guests', '2', '--ram', '8M', '--frames', '3M', '--swap', swap, '--json', json];
  const command = unpin([...args, '--append', 'passes=1000']);
  await command.until(/guest0.*pass 2[\s\S]*guest1.*pass 2|guest1.*pass 2[\s\S]*guest0.*pass 2/);
  command.process.kill('SIGINT');
  const { code, hung } = await command.done;
  expect([code, hung, fs.existsSync(swap)]).toEqual([130, false, false]);
  const { guests, host } = JSON.parse(fs.readFileSync(json, 'utf8'));
  expect(guests.map((g: { exit: string }) => g.exit)).toEqual(['killed', 'killed']);
  expect(host.swapOutPages).toBeGreaterThan(1000);
});

test('a second signal ends the process at once, where the first one does not get through to everybody', async () => {
  const script = `
    import { StopSignals } from '${new URL('stop.js', pathToFileURL(MAIN))}';
    process.once('exit', () => console.log('cleaned'));
    new StopSignals().onStop((signal) => console.log('asked by ' + signal));
    setInterval(() => {}, 1000);
    console.log('ready');`;
  const command = new Command(process.execPath, ['--input-type=module', '-e', script], { killMs: 10_000 });
  await command.until(/ready/);
  command.process.kill('SIGTERM');
  await command.until(/asked by SIGTERM/);
  command.process.kill('SIGINT');
  expect(await command.done).toMatchObject({ code: 130, hung: false, stdout: 'ready\nasked by SIGTERM\ncleaned\n' });
});

test('a reader that has enough ends the run', async () => {
  const swap = swapPath();
  const command = unpin(['boot', '--ram', '32M', '--append', 'passes=1000', '--swap', swap]);
  await command.until(/pass 1/);
  command.process.stdout!.destroy();
  const { code, stderr, hung } = await command.done;
  expect([code, stderr, hung, fs.existsSync(swap)]).toEqual([141, '', false, false]);
});
