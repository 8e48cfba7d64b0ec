import { I32, type ModuleBuilder } from '../base/index.js';

/**
 * Functions over the host's memory that the hart's TypeScript needs: they stand in the interpreter's module, and are exported beside `run`.
 */

/** `fill`, `copy`, `samePage`. */
export function emitMemoryFunctions(module: ModuleBuilder): void {
  emitFill(module);
  emitCopy(module);
  emitSamePage(module);
}

/** `fill(address, byte, length)`: typed arrays over shared memory fill 20 times slower. */
function emitFill(module: ModuleBuilder): void {
  const { code } = module.func('fill', [I32, I32, I32], []);
  code.get(0).get(1).get(2).memoryFill();
}

/** `copy(to, from, length)`. */
function emitCopy(module: ModuleBuilder): void {
  const { code } = module.func('copy', [I32, I32, I32], []);
  code.get(0).get(1).get(2).memoryCopy();
}

/** Words of 8 bytes that one round of `samePage` compares. */
const COMPARED_AT_ONCE = 8;

/** `samePage(a, b)`: 1 where the 4096 bytes at both addresses are equal. */
function emitSamePage(module: ModuleBuilder): void {
  const { code: c } = module.func('samePage', [I32, I32], [I32]);
  const end = c.local(I32);
  c.get(0).i32(4096).op('i32Add').set(end);
  const differs = c.block();
  const again = c.loop();
  for (let word = 0; word < COMPARED_AT_ONCE; word++) {
    c.get(0)
      .mem('i64Load', 8 * word)
      .get(1)
      .mem('i64Load', 8 * word)
      .op('i64Xor');
    if (word > 0) c.op('i64Or');
  }
  c.op('i64Eqz').op('i32Eqz').brIf(differs);
  c.get(1)
    .i32(8 * COMPARED_AT_ONCE)
    .op('i32Add')
    .set(1);
  c.get(0)
    .i32(8 * COMPARED_AT_ONCE)
    .op('i32Add')
    .tee(0)
    .get(end)
    .op('i32Ne')
    .brIf(again);
  c.i32(1).op('return').end().end().i32(0);
}
