import { expect, it } from 'vitest';
import { unpin } from '../cli/command.js';

/** Every model and every mutant of the repository, by the command. */

it('unpin explore --all: every model holds', async () => {
  const { code, stdout } = await unpin(['explore', '--all'], { killMs: 600_000 }).done;
  expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/^all \d+ models held: /);
  expect(code).toBe(0);
}, 600_000);

it('unpin explore --mutants: none is left alive', async () => {
  const { code, stdout } = await unpin(['explore', '--mutants'], { killMs: 600_000 }).done;
  expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/^all \d+ mutants of \d+ models were found, /);
  expect(code).toBe(0);
}, 600_000);
