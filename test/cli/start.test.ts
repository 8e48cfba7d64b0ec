import { expect, test } from 'vitest';
import { type Result, unpin } from './command.js';

/** `npm start` in a pipe: the proposal's before and after, then the guests. */

function lines({ stdout }: Result, pattern: RegExp): string[] {
  return stdout.split('\n').filter((line) => pattern.test(line));
}

test('pinned it is refused, with notifiers all of it finishes verified, and no control characters are in a pipe', async () => {
  const result = await unpin(['start'], { killMs: 55_000 }).done;
  expect([result.hung, result.stderr, result.code]).toEqual([false, '', 0]);
  expect(lines(result, /mlock 24 MiB {2}ok$/)).toHaveLength(1);
  expect(lines(result, /^ {2}ENOMEM: mlock: 32768 KiB cannot be locked beside the 24576 KiB that are/)).toHaveLength(1);
  expect(lines(result, /^ {2}user \d {2}clear\(vma, 0x[0-9a-f]+000\)$/).length).toBe(6);
  for (const what of ['written', 'rewritten', 'verified'])
    expect(lines(result, new RegExp(`^  user \\d  ${what} `))).toHaveLength(3);
  // All of it before it is rewritten, and again at the end.
  expect(lines(result, /^ {2}user 3 +40 MiB .* 80 MiB$/)).toHaveLength(1);
  expect(lines(result, /^\[guest\d\] memhog: .* 0 errors, checksum/)).toHaveLength(3);
  expect(lines(result, /swapped out \d{4,} pages, in \d{4,}; pinned 0/)).toHaveLength(2);
  expect(result.stdout).toMatch(/\n\nEverything was verified\. [\d.]+ s\n$/);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: there must be none.
  expect(result.stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f]/);
});
