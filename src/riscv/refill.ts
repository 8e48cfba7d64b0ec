import { type Code, I32, I64, type Label, type ModuleBuilder } from '../base/index.js';
import { SSTATUS_SUM } from './csr.js';
import { MODE_USER } from './exits.js';
import * as L from './layout.js';
import { PTE_A, PTE_G, PTE_R, PTE_U, PTE_W } from './sv39.js';
import { emitMoveAway, pushFirst, pushOther, type Slot } from './tlbfunctions.js';

/**
 * A TLB miss that is answered in WebAssembly, without a call of the hart's MMU (as a software-loaded TLB's refill handler, over a table of tables): the
 * second place of the entry is looked at, and then what the MMU has told. All in one function, and short: where caches miss too, the processor looks ahead to the next
 * page's as far as its instructions reach.
 *
 * The MMU says for a region of 512 pages of an address space where 512 words lie that translate it, in memory that other threads may write: host page number
 * in bits 31..12, below it PTE_V, R, W, X, U, G and A as in Sv39; W only where a store needs nothing else. A word is good if the MMU's generation, a word of
 * its own that only counts up, is that of the entry after the look at it, and the address space lives (the count of generations may begin anew, with others):
 *
 *   this thread                             another
 *   reads the word                          takes the word away, or gives its table to somebody else: generation moves
 *   generation is the entry's
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

/** Entry of a region: root, region, generation, address of the words with the level of the guest's ptes below it. */
const ROOT = 0;
const REGION = 4;
const GENERATION = 8;
const WORDS = 12;
const LEVEL_MASK = 3;
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
    this.i32[at + REGION / 4] = region;
    this.i32[at + GENERATION / 4] = generation;
    this.i32[at + WORDS / 4] = address | level;
  }
}

/** Of the emitted function: its parameters, and what several of its parts use. */
interface Locals extends Slot {
  readonly hart: number;
  readonly va: number;
  readonly write: number;
  /** Low word of va; the page's tag. */
  readonly low: number;
  readonly tag: number;
  readonly root: number;
  readonly at: number;
  readonly spte: number;
}

/**
 * `miss(hart, va, table, write)`: 1 where the TLB tables at `table` have got the page of `va` in its first place, with the right to read or write it: from its second
 * place, or anew.
 * @param secondPlace of tlbfunctions.ts. @param tagsAddr EmitOptions.tagsAddr: an entry gets the tag of its page.
 */
export function emitMiss(module: ModuleBuilder, secondPlace: number, tagsAddr: number | undefined): number {
  const { index, code: c } = module.func(undefined, [I32, I64, I32, I32], [I32]);
  const [low, place, slot, root, at, spte] = [I32, I32, I32, I32, I32, I32].map((type) => c.local(type));
  const locals = { hart: 0, va: 1, table: 2, write: 3, tag: c.local(I64), low, place, slot, root, at, spte };
  const fail = c.block();
  emitSecondPlace(c, locals, secondPlace, fail);
  emitRegion(c, locals, fail);
  emitRight(c, locals, fail);
  emitUse(c, locals, fail);
  emitFill(c, locals, tagsAddr, fail);
  c.i32(1).op('return').end().i32(0);
  return index;
}

/** Both places of the page, in the table that was asked. */
function emitSecondPlace(
  c: Code,
  { va, table, write, tag, low, place, slot }: Locals,
  call: number,
  fail: Label,
): void {
  const asked = c.local(I32);
  c.get(va).i64(-4096).op('i64And').set(tag).get(va).op('i32WrapI64').set(low);
  c.get(table).get(write).i32(Math.log2(L.TLB_WRITE)).op('i32Shl').op('i32Add').set(asked);
  pushFirst(c, low);
  c.tee(place);
  pushOther(c, low);
  c.op('i32Xor').get(asked).op('i32Add').mem('i64Load', 0).get(tag).op('i64Eq').if();
  c.get(asked).get(tag).call(call).op('return').end();
  c.get(table).get(place).op('i32Add').set(slot);
  // Where the entry is there it is no miss but an access across pages, or one that is not canonical.
  c.get(asked).get(place).op('i32Add').mem('i64Load', 0).get(tag).op('i64Eq').brIf(fail);
  c.get(va).i64(25).op('i64Shl').i64(25).op('i64ShrS').get(va).op('i64Ne').brIf(fail);
}

/** Reads the word of the page, if it is one of the region's, into `spte`; `at` is where it is. */
function emitRegion(c: Code, { hart, va, root, at, spte }: Locals, fail: Label): void {
  const [vpn, entry, words] = [c.local(I32), c.local(I32), c.local(I32)];
  const hartWord = (offset: number) => c.get(hart).mem('i32Load', offset);
  hartWord(L.REFILL_ROOT).tee(root).op('i32Eqz').brIf(fail);
  c.get(va).i64(12).op('i64ShrU').op('i32WrapI64').i32(0x7ffffff).op('i32And').set(vpn);
  c.get(vpn).i32(9).op('i32ShrU').get(root).i32(ROOT_STRIDE).op('i32Mul').op('i32Add');
  c.i32(L.REFILL_ENTRIES - 1)
    .op('i32And')
    .i32(Math.log2(L.REFILL_ENTRY_BYTES))
    .op('i32Shl');
  c.get(hart)
    .op('i32Add')
    .tee(entry)
    .mem('i32Load', L.REFILL + ROOT)
    .get(root)
    .op('i32Ne')
    .brIf(fail);
  c.get(entry)
    .mem('i32Load', L.REFILL + REGION)
    .get(vpn)
    .i32(9)
    .op('i32ShrU')
    .op('i32Ne')
    .brIf(fail);
  c.get(entry)
    .mem('i32Load', L.REFILL + WORDS)
    .tee(words)
    .i32(LEVEL_MASK)
    .op('i32And')
    .if();
  c.get(vpn);
  hartWord(L.REFILL_FIRST).op('i32LtS').brIf(fail).get(vpn);
  hartWord(L.REFILL_LAST).op('i32GtS').brIf(fail).end();
  c.get(words).i32(~LEVEL_MASK).op('i32And').get(vpn).i32(511).op('i32And').i32(2).op('i32Shl').op('i32Add').tee(at);
  c.atomic('i32Load').set(spte);
  // It was one of the region's: only then may it be written.
  hartWord(L.REFILL_GENERATION)
    .atomic('i32Load')
    .get(entry)
    .mem('i32Load', L.REFILL + GENERATION);
  c.op('i32Ne').brIf(fail);
  hartWord(L.REFILL_ROOT_AT).atomic('i32Load').get(root).op('i32Ne').brIf(fail);
}

/** Whether the word gives the right that is asked for. */
function emitRight(c: Code, { hart, write, spte }: Locals, fail: Label): void {
  const wanted = c.local(I32);
  c.i32(PTE_W).i32(PTE_R).get(write).op('select').set(wanted);
  c.get(hart).mem('i32Load', L.MODE).i32(MODE_USER).op('i32Eq').if();
  c.get(wanted).i32(PTE_U).op('i32Or').tee(wanted).get(spte).op('i32And').get(wanted).op('i32Ne').brIf(fail);
  c.else();
  c.get(spte).get(wanted).i32(0).i32(PTE_U);
  c.get(hart).mem('i32Load', L.CSR_SSTATUS).i32(SSTATUS_SUM).op('i32And').op('select');
  c.op('i32Or').op('i32And').get(wanted).op('i32Ne').brIf(fail).end();
}

/** Its use shows before it is used. */
function emitUse(c: Code, { at, spte }: Locals, fail: Label): void {
  c.get(spte).i32(PTE_A).op('i32And').op('i32Eqz').if();
  c.get(at).get(spte).get(spte).i32(PTE_A).op('i32Or').atomic('i32Cmpxchg').get(spte).op('i32Ne').brIf(fail);
  c.end();
}

/**
 * Into the TLB's reads, and for a store into its writes, unless code was decoded from the page. WHY a load enters nothing for writes: of 19 000 such
 * entries in a boot of Debian 1 100 met a store before they went.
 */
function emitFill(c: Code, locals: Locals, tagsAddr: number | undefined, fail: Label): void {
  const { hart, table, write, spte } = locals;
  const used = c.local(I32);
  c.get(table).get(hart).op('i32Sub').i32(L.TLB_SUPERVISOR).op('i32Sub').i32(L.TLB_TABLE_SHIFT).op('i32ShrU');
  c.get(hart).op('i32Add').set(used);
  c.get(spte).i32(PTE_G).op('i32And').op('i32Eqz').if();
  c.get(table).get(hart).i32(L.TLB_SUPERVISOR).op('i32Add').op('i32Eq').if();
  c.get(hart).i32(1).mem('i32Store', L.TLB_LOCAL).end().end();
  c.get(write).if();
  c.get(hart).mem('i32Load', L.CODE_MAP).get(spte).i32(15).op('i32ShrU').op('i32Add').mem('i32Load8U', 0);
  c.get(spte).i32(12).op('i32ShrU').i32(7).op('i32And').op('i32ShrU').i32(1).op('i32And').brIf(fail);
  emitEntry(c, locals, L.TLB_WRITE, used, tagsAddr);
  c.end();
  c.get(spte).i32(PTE_R).op('i32And').if();
  emitEntry(c, locals, 0, used, tagsAddr);
  c.end();
}

/** Into the table `offset` bytes behind that for reads, whose byte of TLB_USED is at `used`. */
function emitEntry(
  c: Code,
  locals: Locals,
  offset: 0 | typeof L.TLB_WRITE,
  used: number,
  tagsAddr: number | undefined,
) {
  const { low, spte, slot, tag } = locals;
  emitMoveAway(c, locals, offset);
  c.get(used)
    .i32(1)
    .mem('i32Store8', L.TLB_USED + offset / L.TLB_TABLE_BYTES);
  c.get(slot).get(tag).mem('i64Store', offset).get(slot);
  c.get(spte)
    .i32(-4096)
    .op('i32And')
    .get(low)
    .i32(-4096)
    .op('i32And')
    .op('i32Sub')
    .mem('i32Store', offset + 8);
  if (tagsAddr === undefined) return;
  c.get(slot).get(spte).i32(12).op('i32ShrU').i32(2).op('i32Shl').atomic('i32Load', tagsAddr);
  c.mem('i32Store', offset + L.TLB_TAG);
}
