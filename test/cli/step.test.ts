import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Command, MAIN, unpin } from './command.js';

/** `unpin step`: what it shows is what the mm and a driver did. */

/** The steps, without what a terminal gets beside them. */
const rows = (stdout: string) =>
  stdout
    .replaceAll('(a key: next, q: end)', '')
    .replaceAll('\r\x1b[K', '')
    .split('\n')
    .filter((line) => /^ *\d+ {2}/.test(line));

test('N1 N3 N8: one reclaim against a device, in the order of the contract, all at once when stdout is no terminal', async () => {
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
    /exit +the address space is gone +none/,
  ];
  const places = order.map((pattern) => rows(stdout).findIndex((row) => pattern.test(row)));
  expect(places).not.toContain(-1);
  expect(places).toEqual([...places].sort((a, b) => a - b));
  expect(stdout).toMatch(/\nthe device stored 42, its page was away, and it found 42 again/);
});

function onTerminal(): Command {
  const env = { NODE: process.execPath, MAIN, TERM: 'xterm' };
  return new Command('script', ['-qec', '"$NODE" "$MAIN" step', '/dev/null'], { env, stdin: 'open' });
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
