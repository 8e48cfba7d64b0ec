import { I32, I64, type ModuleBuilder } from '../base/index.js';
import { SSTATUS_SUM } from './csr.js';
import { MODE_USER } from './exits.js';
import * as L from './layout.js';
import { PTE_A, PTE_G, PTE_R, PTE_U, PTE_W } from './sv39.js';

/**
 * A TLB miss that is answered in WebAssembly, without a call of the hart's MMU (as a software-loaded TLB's refill handler, over a table of tables).
 *
 * The MMU says for a region of 512 pages of an address space where 512 words lie that translate it, in memory that other threads may write: host page number
 * in bits 31..12, below it PTE_V, R, W, X, U, G and A as in Sv39; W only where a store needs nothing else. A word is good as long as the MMU's generation, a word of
 * its own, stands still from before the look at it until after, and as long as the address space lives (the count of generations may begin anew, with others):
 *
 *   this thread                             another
 *   generation is the entry's
 *   reads the word                          takes the word away, or gives its table to somebody else: generation moves
 *   generation is still the same
 *   word: what it was -> that with PTE_A
 *   TLB                                     asks for a flush of the TLB, and waits
 *   polls, flushes, acknowledges
 *
 * Required outcome: the TLB has nothing after the acknowledgement that went before. PTE_A is set by compare-exchange, and so only in a word that is what was read: its
 * use shows as soon as a TLB has it (N14). Between the look and the mark the table may become another's, and the very same word be entered there anew. Then that one is
 * marked, which shows the use of the same host page; who takes it away, or the page, has all TLBs of other threads flushed, whatever they translate. What was
 * read was valid when it was read, and a fence since then that concerns this hart is its own, or asks for a flush. So the generation is not looked at
 * again after the mark. A link from table to table is never marked: its word is below that of any host page. The twin in TypeScript is ShadowPages.peek (kvm/shadow.ts), which the explorer runs; test/kvm/refill.test.ts has both
 * answer the same questions.
 *
 * What is not so simple goes to the MMU as before: no entry, a right that lacks, sstatus.MXR, a store into a page with decoded code, and superpages outside the
 * hull of those that the MMU has taken note of (a fence of one address in one flushes all of it).
 *
 * Use, all by the hart's own thread or while it does not run: `setGeneration`; `setRoot` with each address space; `put` when the MMU has answered.
 */

/** Entry of a region: root, region | level << LEVEL_SHIFT, generation, address of the words. */
const ROOT = 0;
const REGION = 4;
const GENERATION = 8;
const WORDS = 12;
const REGION_MASK = 0x3ffff;
const LEVEL_SHIFT = 20;
/** Spreads address spaces over the table. */
const ROOT_STRIDE = 37;

export class RefillTable {
  private readonly i32: Int32Array;
  private readonly base: number;

  /** @param i32 all of memory. @param base of the hart. */
  constructor(i32: Int32Array, base: number) {
    this.i32 = i32;
    this.base = base;
  }

  /** Address of the word that moves when what the table says is void. */
  setGeneration(address: number): void {
    this.i32[(this.base + L.REFILL_GENERATION) >>> 2] = address;
    this.setSuperpages(1, 0);
  }

  /** The present address space, by a number above 0 that no other ever has and that is at `address` as long as it lives; 0: the MMU is asked always. */
  setRoot(root: number, address: number): void {
    this.i32[(this.base + L.REFILL_ROOT) >>> 2] = root;
    this.i32[(this.base + L.REFILL_ROOT_AT) >>> 2] = address;
  }

  /** Superpages of [first, last] (27 bits of vpn) may be refilled; none where last is below first. */
  setSuperpages(first: number, last: number): void {
    this.i32[(this.base + L.REFILL_FIRST) >>> 2] = first;
    this.i32[(this.base + L.REFILL_LAST) >>> 2] = last;
  }

  /** The words at `address` translate region `vpn >>> 9` of the present address space, as of `generation`; from guest ptes of `level`. */
  put(region: number, generation: number, address: number, level: number): void {
    const root = this.i32[(this.base + L.REFILL_ROOT) >>> 2]!;
    const index = (region + Math.imul(root, ROOT_STRIDE)) & (L.REFILL_ENTRIES - 1);
    const at = (this.base + L.REFILL + index * L.REFILL_ENTRY_BYTES) >>> 2;
    this.i32[at + ROOT / 4] = root;
    this.i32[at + REGION / 4] = region | (level << LEVEL_SHIFT);
    this.i32[at + GENERATION / 4] = generation;
    this.i32[at + WORDS / 4] = address;
  }
}

/**
 * `refill(hart, va, table, write)`: 1 where the TLB tables at `table` have got the page of `va` anew, with the right to read or write it.
 * @param moveAway TlbFunctions. @param tagsAddr EmitOptions.tagsAddr: an entry gets the tag of its page.
 */
export function emitRefill(module: ModuleBuilder, moveAway: number, tagsAddr: number | undefined): number {
  const { index, code: c } = module.func(undefined, [I32, I64, I32, I32], [I32]);
  const [hart, va, table, write] = [0, 1, 2, 3];
  const i32 = () => c.local(I32);
  const [root, vpn, entry, generation, at] = [i32(), i32(), i32(), i32(), i32()];
  const [spte, slot, wanted, low] = [i32(), i32(), i32(), i32()];
  const tag = c.local(I64);
  const hartWord = (offset: number) => c.get(hart).mem('i32Load', offset);
  const loadGeneration = () => hartWord(L.REFILL_GENERATION).atomic('i32Load');

  const fail = c.block();
  hartWord(L.REFILL_ROOT).tee(root).op('i32Eqz').brIf(fail);
  // Where the entry is there it is no miss but an access across pages, or one that is not canonical.
  c.get(va).i64(-4096).op('i64And').set(tag).get(va).op('i32WrapI64').set(low);
  c.get(low).i32(8).op('i32ShrU');
  c.i32((L.TLB_ENTRIES - 1) * L.TLB_ENTRY_BYTES)
    .op('i32And')
    .get(table)
    .op('i32Add')
    .tee(slot);
  c.get(write).i32(L.TLB_WRITE).op('i32Mul').op('i32Add').mem('i64Load', 0).get(tag).op('i64Eq').brIf(fail);
  c.get(va).i64(25).op('i64Shl').i64(25).op('i64ShrS').get(va).op('i64Ne').brIf(fail);
  c.get(va).i64(12).op('i64ShrU').op('i32WrapI64').i32(0x7ffffff).op('i32And').set(vpn);

  // The entry of the region.
  c.get(vpn).i32(9).op('i32ShrU').get(root).i32(ROOT_STRIDE).op('i32Mul').op('i32Add');
  c.i32(L.REFILL_ENTRIES - 1)
    .op('i32And')
    .i32(L.REFILL_ENTRY_BYTES)
    .op('i32Mul');
  c.get(hart).op('i32Add').i32(L.REFILL).op('i32Add').tee(entry).mem('i32Load', ROOT).get(root).op('i32Ne').brIf(fail);
  c.get(entry).mem('i32Load', REGION).tee(at).i32(REGION_MASK).op('i32And');
  c.get(vpn).i32(9).op('i32ShrU').op('i32Ne').brIf(fail);
  loadGeneration().tee(generation).get(entry).mem('i32Load', GENERATION).op('i32Ne').brIf(fail);
  c.get(at).i32(LEVEL_SHIFT).op('i32ShrU').if();
  c.get(vpn);
  hartWord(L.REFILL_FIRST).op('i32LtS').brIf(fail).get(vpn);
  hartWord(L.REFILL_LAST).op('i32GtS').brIf(fail).end();

  // The word, and whether it gives the right.
  c.get(entry).mem('i32Load', WORDS).get(vpn).i32(511).op('i32And').i32(2).op('i32Shl').op('i32Add').tee(at);
  c.atomic('i32Load').set(spte);
  c.i32(PTE_W).i32(PTE_R).get(write).op('select').set(wanted);
  hartWord(L.MODE).i32(MODE_USER).op('i32Eq').if();
  c.get(wanted).i32(PTE_U).op('i32Or').tee(wanted).get(spte).op('i32And').get(wanted).op('i32Ne').brIf(fail);
  c.else();
  c.get(spte).get(wanted);
  c.i32(0).i32(PTE_U);
  hartWord(L.CSR_SSTATUS).i32(SSTATUS_SUM).op('i32And').op('select');
  c.op('i32Or').op('i32And').get(wanted).op('i32Ne').brIf(fail).end();

  // It was one of the region's: only then may it be written.
  loadGeneration().get(generation).op('i32Ne').brIf(fail);
  hartWord(L.REFILL_ROOT_AT).atomic('i32Load').get(root).op('i32Ne').brIf(fail);
  // Its use shows before it is used.
  c.get(spte).i32(PTE_A).op('i32And').op('i32Eqz').if();
  c.get(at).get(spte).get(spte).i32(PTE_A).op('i32Or').atomic('i32Cmpxchg').get(spte).op('i32Ne').brIf(fail);
  c.end();

  // Into the TLB: for writing only where no code was decoded from the page.
  const addend = () => c.get(spte).i32(-4096).op('i32And').get(low).i32(-4096).op('i32And').op('i32Sub');
  const set = (offset: number) => {
    c.get(table).i32(offset).op('i32Add').get(slot).i32(offset).op('i32Add').call(moveAway);
    c.get(table).get(hart).op('i32Sub');
    c.i32(offset - L.TLB_SUPERVISOR)
      .op('i32Add')
      .i32(L.TLB_TABLE_SHIFT)
      .op('i32ShrU');
    c.get(hart).op('i32Add').i32(1).mem('i32Store8', L.TLB_USED);
    c.get(slot).get(tag).mem('i64Store', offset).get(slot);
    addend().mem('i32Store', offset + 8);
    if (tagsAddr === undefined) return;
    c.get(slot).get(spte).i32(12).op('i32ShrU').i32(2).op('i32Shl').atomic('i32Load', tagsAddr);
    c.mem('i32Store', offset + L.TLB_TAG);
  };
  c.get(spte).i32(PTE_G).op('i32And').op('i32Eqz').get(table).get(hart).i32(L.TLB_SUPERVISOR).op('i32Add').op('i32Eq');
  c.op('i32And').if();
  c.get(hart).i32(1).mem('i32Store', L.TLB_LOCAL).end();
  c.get(spte).i32(PTE_W).op('i32And').if();
  hartWord(L.CODE_MAP).get(spte).i32(15).op('i32ShrU').op('i32Add').mem('i32Load8U', 0);
  c.get(spte).i32(12).op('i32ShrU').i32(7).op('i32And').op('i32ShrU').i32(1).op('i32And').if();
  c.get(write).brIf(fail).else();
  set(L.TLB_WRITE);
  c.end().end();
  c.get(spte).i32(PTE_R).op('i32And').if();
  set(0);
  c.end().i32(1).op('return').end().i32(0);
  return index;
}
