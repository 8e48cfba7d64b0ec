import { expect, test } from 'vitest';
import { Command, MAIN } from './command.js';

/** The command with its locks checked: two guests that swap. */

test('N7 N13: guests that swap break no rule of base/lockorder.ts', async () => {
  const lockdep = ['--import', 'data:text/javascript,globalThis.__CONFIG_LOCKDEP__=true'];
  const boot = ['boot', '--guests', '2', '--ram', '8M', '--frames', '6M'];
  const result = await new Command(process.execPath, [...lockdep, MAIN, ...boot], { killMs: 55_000 }).done;
  expect(result).toMatchObject({ code: 0, hung: false });
  expect(result.stdout + result.stderr).not.toMatch(/BUG|lockdep/);
});
