import { readFileSync } from 'node:fs';
import type { RP2040 } from 'rp2040js';
import { FLASH_START_ADDRESS, RAM_START_ADDRESS } from './bigpico.js';

/** The stack of the program, above its array. */
export const STACK_BYTES = 4096;

/**
 * Runs sort.bin on `mcu`: an array of `nrWords` words at the start of its RAM of `ramBytes`, the stack at the end. Returns what it
 * printed, and how many cycles it took.
 */
export function runSort(mcu: RP2040, ramBytes: number, nrWords: number): { printed: string; cycles: number } {
  const { core } = mcu;
  mcu.flash.set(readFileSync('examples/rp2040/sort.bin'));
  core.PC = FLASH_START_ADDRESS;
  core.SP = RAM_START_ADDRESS + ramBytes;
  core.registers[0] = RAM_START_ADDRESS;
  core.registers[1] = nrWords;
  core.cycles = 0;
  let printed = '';
  mcu.uart[0]!.onByte = (byte) => {
    printed += String.fromCharCode(byte);
  };
  let done = false;
  mcu.onBreak = () => {
    done = true;
  };
  while (!done) core.executeInstruction();
  return { printed, cycles: core.cycles };
}

/** What it must print, worked out in JavaScript. */
export function expectedOutput(nrWords: number): string {
  const words = new Uint32Array(nrWords);
  let x = 2463534242;
  for (let i = 0; i < nrWords; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  const sum = words.sort().reduce((s, word, i) => (s + Math.imul(word, 2 * i + 1)) | 0, 0);
  const hex = (n: number) => `0x${(n >>> 0).toString(16).padStart(8, '0')}`;
  return `sorted ${hex(nrWords)} words, ${hex(0)} out of order, checksum ${hex(sum)}\n`;
}
