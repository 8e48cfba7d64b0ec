import { Host, type HostOptions, type Mm } from '../../src/mm/index.js';

/** What tests of files begin with: a small host, two address spaces, and bytes to put into them. */

export function twoMms(options: Partial<HostOptions> & { frames: number }): { host: Host; mm: Mm; other: Mm } {
  const host = new Host({ arenaBytes: 65536, debug: true, defer: (fn) => setImmediate(fn), ...options });
  return { host, mm: host.createMm({ name: 'a' }), other: host.createMm({ name: 'b' }) };
}

export const fill = (nrBytes: number, value: number): Uint8Array => new Uint8Array(nrBytes).fill(value);

export async function byteAt(mm: Mm, va: number): Promise<number> {
  const bytes = new Uint8Array(1);
  await mm.read(va, bytes);
  return bytes[0]!;
}
