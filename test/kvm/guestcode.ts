/** What the programs of these tests need beside the instructions of test/isa/assemble.ts. */

export const ZERO = 0;
export const T0 = 5;
export const A0 = 10;
export const A1 = 11;
export const A7 = 17;

/** jal zero, 0 */
export const LOOP = 0x0000006f;

export function code(...words: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(words).buffer);
}
