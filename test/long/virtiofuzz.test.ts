import { expect, test } from 'vitest';
import { hostile } from '../machine/virtio/hostile.js';

/** A hostile guest at PCI and virtio, 800 000 acts, of which CI does a quarter; `UNPIN_SEED` begins elsewhere. Prints the reasons that were met. */

const NR_SEEDS = process.env.CI ? 200 : 800;
const seed = Number(process.env.UNPIN_SEED ?? 1000);

test(`a hostile guest harms itself alone: ${NR_SEEDS} seeds`, async () => {
  const kinds = new Map<string, number>();
  for (let k = 0; k < NR_SEEDS; k++) {
    const { wrong, reasons } = await hostile(seed + k, 1000);
    expect([seed + k, wrong]).toEqual([seed + k, []]);
    for (const reason of reasons) {
      const kind = reason.replace(/0x[0-9a-f]+|\d+/g, 'N');
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    }
  }
  console.log([...kinds].map(([kind, nr]) => `${nr} ${kind}`).join('\n'));
  expect(kinds.size).toBeGreaterThan(30);
});
