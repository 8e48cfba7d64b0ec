import {
  type Code,
  I32,
  I64,
  instantiate,
  isWasmMemory,
  type Label,
  ModuleBuilder,
  WORDS_ARE_MEMORY,
} from '../base/index.js';
import { pushPeekPte } from '../mm/index.js';
import { PTE_A, PTE_D, PTE_R, PTE_V, PTE_W, PTE_X } from '../riscv/index.js';
import { DIRECT_V, DIRECT_W } from './memslot.js';
import { SPTE_G, SPTE_R, SPTE_U, SPTE_V, SPTE_W, SPTE_X } from './spte.js';

/**
 * Neighbours in sequence, entered in WebAssembly: what `Prefetch` (prefetch.ts) does by `enterOne`, of which this is the twin, for as long as
 * guest frames stay in one memslot, and the host's pages of it in one leaf table. Under the same rules: the VM's mmu lock is held, no bracket is under way.
 * test/kvm/neighbourloop.test.ts has both do the same work, and every word of memory must come out the same.
 *
 * WHY: a neighbour costs 45 ns by TypeScript, 6 by this, and its pages' first use is what a guest waits for.
 *
 * Use: `neighbourLoopOf(memory)`; `enter` from the first entry on, again from where it stopped; `warm`.
 */
export interface NeighbourLoop {
  /**
   * Addresses: `entry` and `end`, of shadow entries in one page; `pte`, of the guest's for `entry`; `direct`, of the slot's words; `table`, of the first pte of the
   * host's leaf table that has the pages `region` * 512 and on, 0 where there is none; `counter`, of the word that counts what was entered. `firstEntry` is the
   * address of entry 0, `stride` the bytes from an entry to the next word beside it. `wanted`: SPTE_W for a store, else 0; `granted`: DIRECT_W where the slot may
   * show a page writable, else 0. Returns the address of the first entry not looked at: `end`, or one whose frame lies elsewhere.
   */
  enter(
    entry: number,
    end: number,
    pte: number,
    baseGfn: number,
    nrPages: number,
    baseVpn: number,
    direct: number,
    region: number,
    table: number,
    counter: number,
    firstEntry: number,
    stride: number,
    wanted: number,
    granted: number,
  ): number;
  /** Reads the word at byte `offset` of each page that the entries from `entry` to `end` show; what it returns means nothing. */
  warm(entry: number, end: number, offset: number): number;
}

const known = new WeakMap<object, NeighbourLoop>();

/** Undefined where accesses to words must be told one by one, or the memory is none of WebAssembly's. */
export function neighbourLoopOf(memory: { readonly buffer: SharedArrayBuffer }): NeighbourLoop | undefined {
  if (!WORDS_ARE_MEMORY || !isWasmMemory(memory)) return undefined;
  let loop = known.get(memory.buffer);
  if (loop === undefined) {
    const { enter, warm } = instantiate(moduleBytes(), { env: { memory } }) as unknown as NeighbourLoop;
    // WHY not the exports themselves: see wordops.ts.
    loop = { enter, warm };
    known.set(memory.buffer, loop);
  }
  return loop;
}

function moduleBytes(): Uint8Array {
  const module = new ModuleBuilder();
  emitEnter(
    module.func(
      'enter',
      Array.from({ length: 14 }, () => I32),
      [I32],
    ).code,
  );
  emitWarm(module.func('warm', [I32, I32, I32], [I32]).code);
  return module.toBytes();
}

const [ENTRY, END, PTE, BASE_GFN, NR_PAGES, BASE_VPN, DIRECT] = [0, 1, 2, 3, 4, 5, 6];
const [REGION, TABLE, COUNTER, FIRST_ENTRY, STRIDE, WANTED, GRANTED] = [7, 8, 9, 10, 11, 12, 13];

const FORM = PTE_V | PTE_R | PTE_W | PTE_X;
/** Bit n: n, of the bits FORM, is a leaf's (privileged manual, table of R, W and X). */
const LEAVES = [PTE_R, PTE_R | PTE_W, PTE_X, PTE_R | PTE_X, PTE_R | PTE_W | PTE_X].reduce(
  (bits, form) => bits | (1 << (PTE_V | form)),
  0,
);

function emitEnter(c: Code): void {
  const [low, rights, i, entry] = [c.local(I32), c.local(I32), c.local(I32), c.local(I32)];
  const nr = c.local(I32);
  const all = c.block();
  const again = c.loop();
  c.get(ENTRY).get(END).op('i32Eq').brIf(all);
  const skip = c.block();
  emitRights(c, low, rights, skip);
  c.get(low).i32(10).op('i32ShrU').get(BASE_GFN).op('i32Sub').tee(i).get(NR_PAGES).op('i32GeU').brIf(all);
  emitDirect(c, i, entry, all, skip);
  // entry: the shadow entry, without W where the direct entry lacks it.
  c.get(entry).i32(-4096).op('i32And').get(rights).get(entry).i32(DIRECT_W).op('i32And').i32(1).op('i32Shl');
  c.i32(~SPTE_W).op('i32Or').op('i32And').op('i32Or').i32(SPTE_V).op('i32Or').tee(entry);
  c.get(WANTED).op('i32And').get(WANTED).op('i32Ne').brIf(skip);
  c.get(ENTRY).get(entry).mem('i32Store');
  emitRmap(c, low, i);
  c.get(nr).i32(1).op('i32Add').set(nr).end();
  c.get(ENTRY).i32(4).op('i32Add').set(ENTRY).get(PTE).i32(8).op('i32Add').set(PTE).br(again);
  c.end().end().get(COUNTER).get(COUNTER).mem('i32Load').get(nr).op('i32Add').mem('i32Store').get(ENTRY);
}

/** The guest's pte and the rights that it gives now; skips where there is an entry, where they are not enough, and where a pte is none or is being written. */
function emitRights(c: Code, low: number, rights: number, skip: Label): void {
  c.get(ENTRY).mem('i32Load').brIf(skip);
  const pte = c.local(I64);
  c.get(PTE).mem('i64Load').tee(pte).i64(32).op('i64ShrU').op('i64Eqz').op('i32Eqz').brIf(skip);
  c.get(pte).op('i32WrapI64').set(low);
  c.i32(LEAVES).get(low).i32(FORM).op('i32And').op('i32ShrU');
  c.get(low).i32(Math.log2(PTE_A)).op('i32ShrU').op('i32And').i32(1).op('i32And').op('i32Eqz').brIf(skip);
  // W only where the pte is dirty: D stands five bits above it.
  c.get(low)
    .i32(SPTE_R | SPTE_X | SPTE_U | SPTE_G)
    .op('i32And');
  c.get(low)
    .get(low)
    .i32(Math.log2(PTE_D / PTE_W))
    .op('i32ShrU')
    .op('i32And')
    .i32(SPTE_W)
    .op('i32And');
  c.op('i32Or').tee(rights).get(WANTED).op('i32And').get(WANTED).op('i32Ne').brIf(skip);
}

/** The direct entry of page `i` into `entry`, made of the host's pte if need be; `all` where that is in another table. */
function emitDirect(c: Code, i: number, entry: number, all: Label, skip: Label): void {
  const [at, vpn, peeked] = [c.local(I32), c.local(I32), c.local(I32)];
  c.get(DIRECT).get(i).i32(2).op('i32Shl').op('i32Add').tee(at).mem('i32Load').tee(entry);
  c.i32(DIRECT_V).op('i32And').op('i32Eqz').if();
  c.get(BASE_VPN).get(i).op('i32Add').tee(vpn).i32(9).op('i32ShrU').get(REGION).op('i32Ne').brIf(all);
  c.get(TABLE).op('i32Eqz').brIf(skip);
  c.get(TABLE).get(vpn).i32(511).op('i32And').i32(2).op('i32Shl').op('i32Add').mem('i32Load').set(vpn);
  pushPeekPte(c, vpn);
  c.tee(peeked).op('i32Eqz').brIf(skip);
  c.get(peeked).i32(1).op('i32ShrU').i32(12).op('i32Shl').i32(DIRECT_V).op('i32Or');
  c.get(peeked).i32(1).op('i32Shl').get(GRANTED).op('i32And').op('i32Or').set(entry);
  c.get(at).get(entry).mem('i32Store').end();
}

/** As Rmap.add. */
function emitRmap(c: Code, low: number, i: number): void {
  const [word, head, link] = [c.local(I32), c.local(I32), c.local(I32)];
  c.get(ENTRY).get(FIRST_ENTRY).op('i32Sub').i32(2).op('i32ShrU').i32(1).op('i32Add').set(link);
  c.get(ENTRY).get(STRIDE).op('i32Add').tee(word).get(low).i32(10).op('i32ShrU').mem('i32Store');
  // The slot's reverse map lies after its direct entries.
  c.get(DIRECT).get(NR_PAGES).get(i).op('i32Add').i32(2).op('i32Shl').op('i32Add').set(i);
  c.get(word).get(STRIDE).op('i32Add').tee(word).get(i).mem('i32Load').tee(head).mem('i32Store');
  c.get(word).get(STRIDE).op('i32Add').i32(0).mem('i32Store');
  c.get(head).if();
  c.get(FIRST_ENTRY).get(STRIDE).i32(3).op('i32Mul').op('i32Add').get(head).i32(1).op('i32Sub').i32(2).op('i32Shl');
  c.op('i32Add').get(link).mem('i32Store').end();
  c.get(i).get(link).mem('i32Store');
}

/** Where there is no entry, a word of page 0 is read, which is nobody's. */
function emitWarm(c: Code): void {
  const [entry, end, offset] = [0, 1, 2];
  const sum = c.local(I32);
  const all = c.block();
  const again = c.loop();
  c.get(entry).get(end).op('i32Eq').brIf(all);
  c.get(entry)
    .mem('i32Load')
    .i32(-4096)
    .op('i32And')
    .get(offset)
    .op('i32Add')
    .mem('i32Load')
    .get(sum)
    .op('i32Xor')
    .set(sum);
  c.get(entry).i32(4).op('i32Add').set(entry).br(again);
  c.end().end().get(sum);
}
