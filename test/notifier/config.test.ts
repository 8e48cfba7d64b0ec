import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

/** The same code with CONFIG_PTE_NOTIFIERS false, as a bundler makes it. */
test('S6: compiled out, mm works, nobody can register, and no hook is left', async () => {
  const outfile = join(import.meta.dirname, `.compiled-out.${process.pid}.mjs`);
  const common = { bundle: true, format: 'esm', platform: 'node', minifySyntax: true } as const;
  const define = { __CONFIG_PTE_NOTIFIERS__: 'false' };
  const contents = `export * from '../../src/mm/index.js'; export * from '../../src/notifier/index.js';`;
  const stdin = { contents, resolveDir: import.meta.dirname, loader: 'ts' as const };
  try {
    await build({ ...common, define, stdin, outfile });
    const { Host, MemorySwap, PteNotifier, pteNotifierRegister, CONFIG_PTE_NOTIFIERS } = await import(
      pathToFileURL(outfile).href
    );
    expect(CONFIG_PTE_NOTIFIERS).toBe(false);
    const host = new Host({ frames: 64, swap: new MemorySwap({ sizeBytes: 2 ** 22 }) });
    const mm = host.createMm();
    const va = mm.mmap(0, 256 * 4096, 3, 0x22);
    const byte = new Uint8Array(1);
    for (let p = 0; p < 256; p++) mm.writeSync(va + p * 4096, byte.fill(p));
    for (let p = 0; p < 256; p++) {
      mm.readSync(va + p * 4096, byte);
      expect(byte[0]).toBe(p);
    }
    expect(host.vmstat.brackets).toBe(0);
    expect(() => pteNotifierRegister(new PteNotifier({ clear() {} }), mm.findVma(va))).toThrow(/ENOSYS/);
  } finally {
    rmSync(outfile, { force: true });
  }
});
