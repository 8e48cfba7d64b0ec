import { expect, it } from 'vitest';
import { hostile } from './hostile.js';

it('a hostile guest harms itself alone: 60 seeds', async () => {
  const kinds = new Set<string>();
  let files = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const { wrong, reasons, nrFiles } = await hostile(seed, 300);
    files += nrFiles;
    expect([seed, wrong]).toEqual([seed, []]);
    for (const reason of reasons) kinds.add(reason.replace(/0x[0-9a-f]+|\d+/g, 'N'));
  }
  // It must get at the devices, or it proves nothing.
  expect(kinds.size, [...kinds].join('\n')).toBeGreaterThan(20);
  expect(files).toBeGreaterThan(0);
});
