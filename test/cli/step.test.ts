import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Command, expectRefused, unpin } from './command.js';
import { inTerminal } from './pty.js';

/** `unpin step`: what it shows is what the mm and a driver did. */

/** The steps, without what a terminal gets beside them. */
const rows = (stdout: string) =>
  stdout
    .replaceAll('(a key: next, q: end)', '')
    .replaceAll('\r\x1b[K', '')
    .split('\n')
    .filter((line) => /^ *\d+ {2}/.test(line));

test('N1 N3 N4 N8: one reclaim against a device, in the order of the contract, all at once when stdout is no terminal', async () => {
  const { code, stdout, stderr } = await unpin(['step']).done;
  expect([code, stderr]).toEqual([0, '']);
  const order = [
    /device +store of 42 done +frame \d+ \(RWAD\) +frame \d+ RW +frame \d+ RW/,
    /reclaim +clearFlushYoung: the external accessed bit was set/,
    /reclaim +invalidateRangeStart: .* 0 +1\*/,
    /reclaim +the external pte is zapped +frame \d+ \(RW-D\) +-\*/,
    /reclaim +the TLB is flushed/,
    /device +readRetry: yes/,
    /reclaim +the pte is replaced: swap slot 0 +swap slot 0\* +- +- +0 +1/,
    /reclaim +invalidateRangeEnd: .* 1\* +0\*/,
    /reclaim +nobody refers to the frame/,
    /other +another address space takes the frame/,
    /device +tryGetPage: FAULT_RETRY/,
    /mm +faultIn: /,
    /device +load done: 42/,
    /exit +invalidateRangeEnd: .* \d+: refs 0, maps 0\*$/,
    /exit +the address space is gone +none .* \d+: free\*$/,
  ];
  const places = order.map((pattern) => rows(stdout).findIndex((row) => pattern.test(row)));
  expect(places).not.toContain(-1);
  expect(places).toEqual([...places].sort((a, b) => a - b));
  expect(stdout).toMatch(/\nthe device stored 42, its page was away, and it found 42 again/);
});

function onTerminal(columns = 200): Command {
  return inTerminal(`stty cols ${columns}; exec "$NODE" "$MAIN" step`);
}

test('on a terminal a key shows one step more, and q ends it', async () => {
  const command = onTerminal();
  await command.until(/ 1 {2}device[\s\S]*a key: next/);
  expect(rows(command.stdout)).toHaveLength(1);
  command.process.stdin!.write('nn');
  await command.until(/ 3 {2}device[\s\S]*a key: next/);
  command.process.stdin!.write('q');
  const { code, stdout } = await command.done;
  expect(code).toBe(0);
  expect(rows(stdout)).toHaveLength(3);
});

test('on a terminal the last key ends it, and Ctrl-C does so as everywhere', async () => {
  const all = onTerminal();
  await all.until(/a key: next/);
  all.process.stdin!.write(' '.repeat(100));
  expect(await all.done).toMatchObject({ code: 0, stdout: expect.stringMatching(/it found 42 again/) });
  const stopped = onTerminal();
  await stopped.until(/a key: next/);
  stopped.process.stdin!.write('\x03');
  expect((await stopped.done).code).toBe(130);
});

test('on a narrow terminal a step has several lines, none of them longer than it; a key that sends several bytes is one', async () => {
  const command = onTerminal(60);
  await command.until(/ 1 {2}device: store[\s\S]*a key: next/);
  command.process.stdin!.write('\x1b[B');
  await command.until(/ 2 {2}device: {3}tryGetPage[\s\S]*a key: next/);
  command.process.stdin!.write(' '.repeat(100));
  const { code, stdout } = await command.done;
  expect(code).toBe(0);
  const shown = stdout.replaceAll('(a key: next, q: end)', '').replaceAll('\r\x1b[K', '');
  const [before, ...steps] = shown.split(/^(?= *\d+ {2})/m);
  expect(before).toMatch(/RWAD: readable, writable, accessed, dirty/);
  const all = rows((await unpin(['step']).done).stdout);
  expect(steps).toHaveLength(all.length);
  const told = shown.slice(0, shown.indexOf('the device stored')).split('\r\n');
  expect(told.filter((line) => line.length >= 60 && !line.startsWith('refs'))).toEqual([]);
  const cells = (step: string) =>
    step.replace(/\s+/g, ' ').replaceAll(/\b(pte|external|TLB|seq|inProgress|frame) /g, '');
  for (const [n, row] of all.entries()) expect(cells(steps[n]!.replace(': ', ' '))).toContain(cells(row).trim());
});

test.each([
  [['more'], /^unpin: EINVAL: too many arguments for 'step'/],
  [['--jsn', 'x'], /^unpin: EINVAL: unknown option '--jsn' \(Did you mean --json\?\)/],
  [['--json'], /^unpin: EINVAL: option '--json <file>' argument missing/],
])('%j is refused', async (args, line) => {
  expectRefused(await unpin(['step', ...args]).done, line);
});

test('--json writes the steps of the table as data', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'unpin-step-'));
  try {
    const file = join(folder, 'step.json');
    const { code, stdout } = await unpin(['step', '--json', file]).done;
    const { steps, stored, found } = JSON.parse(readFileSync(file, 'utf8'));
    expect([code, stored, found, steps.length]).toEqual([0, 42, 42, rows(stdout).length]);
    const zapped = steps.findIndex(({ what }: { what: string }) => what === '  the external pte is zapped');
    expect(steps[zapped - 1]).toMatchObject({
      who: 'reclaim',
      seq: 0,
      inProgress: 1,
      external: expect.stringMatching(/^frame \d+ RW$/),
    });
    expect(steps[zapped]).toMatchObject({ external: '-', tlb: steps[zapped - 1].tlb });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a file that cannot be written is refused before anything is shown', async () => {
  const { code, stdout, stderr } = await unpin(['step', '--json', '/no/such/folder/x.json']).done;
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).toMatch(
    /^unpin: ENOENT: open: --json '\/no\/such\/folder\/x.json' must be a file that can be written/,
  );
  expect(existsSync('/no/such/folder')).toBe(false);
});
