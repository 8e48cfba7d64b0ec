import type { Hart } from './hart.js';
import { SLOW_LEAVE, SLOW_TRAPPED } from './interp.js';
import * as L from './layout.js';
import type { Traps } from './trap.js';

/** What the parts of the slow path share: the hart's words, and the ways in which an instruction can end other than by retiring. */

const NON_CANONICAL = Number.NaN;

export abstract class SlowBase {
  protected readonly hart: Hart;
  protected readonly traps: Traps;
  protected readonly i32: Int32Array;
  protected readonly u16: Uint16Array;
  protected readonly u8: Uint8Array;
  protected readonly base: number;

  constructor(hart: Hart, traps: Traps) {
    this.hart = hart;
    this.traps = traps;
    const { i32, u16, u8 } = hart.engine;
    [this.i32, this.u16, this.u8, this.base] = [i32, u16, u8, hart.base];
  }

  protected word(offset: number): number {
    return this.i32[(this.base + offset) >>> 2]!;
  }

  /** The canonical address in a 64-bit field, NaN where it is not canonical (or, without paging, beyond 2^53). */
  protected address(offset: number): number {
    const low = this.word(offset);
    const high = this.word(offset + 4);
    const canonical = this.hart.paging ? (high << 25) >> 25 === high : high >>> 21 === 0;
    return canonical ? high * 2 ** 32 + (low >>> 0) : NON_CANONICAL;
  }

  protected leave(exit: number, answer: number): number {
    this.hart.exit = exit;
    return answer | SLOW_LEAVE;
  }

  protected trap(cause: number, tvalLow: number, tvalHigh: number): number {
    return this.traps.exception(cause, tvalLow, tvalHigh) ? SLOW_TRAPPED | SLOW_LEAVE : SLOW_TRAPPED;
  }

  protected advancePc(lenBytes: number): void {
    const at = (this.base + L.PC) >>> 2;
    const low = this.i32[at]!;
    this.i32[at] = low + lenBytes;
    if (low >>> 0 > 0xffffffff - lenBytes) this.i32[at + 1]!++;
  }
}
