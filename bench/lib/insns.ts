import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';

/**
 * Instructions of a call, counted and not timed: the program runs step by step under ptrace (bench/linux-peer/insncount.c) in two stretches of
 * different length, in turn, and the difference of the two is that of the calls between. The engine compiles in the same thread, before the stretches,
 * so that each count comes out the same. Linux on x86-64 with a C compiler.
 */
const SHORT = 8;
const LONG = 40;
const NR_PAIRS = 3;

/** Instructions a call of the loop in `entry`, once bundled with `define` as a program is shipped. Throws where it cannot be counted. */
export async function instructionsPerCall(entry: string, define: Record<string, string>): Promise<number> {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Error('it steps through x86-64 code on Linux');
  const folder = mkdtempSync(join(tmpdir(), 'insns-'));
  try {
    const counter = join(folder, 'insncount');
    execFileSync('cc', ['-O2', 'bench/linux-peer/insncount.c', '-o', counter], { stdio: 'inherit' });
    const outfile = join(folder, 'loop.mjs');
    await build({
      ...{ entryPoints: [entry], outfile, define, bundle: true, minifySyntax: true },
      ...{ platform: 'node', format: 'esm', packages: 'external' },
    });
    return perCall(counter, outfile);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function perCall(counter: string, program: string): number {
  const stretches = Array.from({ length: NR_PAIRS }, () => [String(SHORT), String(LONG)]).flat();
  const { status, stderr } = spawnSync(counter, [process.execPath, '--single-threaded', program, ...stretches], {
    encoding: 'utf8',
  });
  const counts = stderr.trim().split('\n').map(Number);
  if (status !== 0 || counts.length !== stretches.length) throw new Error(`insncount ended with ${status}: ${stderr}`);
  const least = (k: number) => Math.min(...counts.filter((_, i) => i % 2 === k));
  return (least(1) - least(0)) / (LONG - SHORT);
}
