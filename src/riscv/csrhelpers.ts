import { type Code, I32, I64, type ModuleBuilder } from '../base/index.js';
import * as C from './csr.js';
import { CSR } from './csr.js';
import { MODE_USER } from './exits.js';
import * as L from './layout.js';

/**
 * What a kernel does with CSRs at each trap and each lock, in the generated module: sstatus, sscratch, sepc, scause, stval, and sret. As
 * csrfile.ts and trap.ts have it in TypeScript, which does all other cases; each function answers 0 and has done nothing where it is one
 * of them: what is not permitted, and what lets an interrupt in or changes translation.
 *
 * WHY twice: a page fault of Linux is 20 of these and a context switch 45, and a call from WebAssembly to TypeScript and what it does
 * there are 50 to 100 ns.
 */

const HART = 0;

/** How a CSR instruction changes the CSR. */
export const CSR_WRITE = 0;
export const CSR_SET = 1;
export const CSR_CLEAR = 2;

/** CSRs that are plain storage, by offset, with the bits of the low word that stay 0. */
const STORAGE: readonly (readonly [csr: number, offset: number, clear: number])[] = [
  [CSR.sscratch, L.CSR_SSCRATCH, 0],
  [CSR.sepc, L.CSR_SEPC, 1],
  [CSR.scause, L.CSR_SCAUSE, 0],
  [CSR.stval, L.CSR_STVAL, 0],
];

export function emitCsrHelpers(module: ModuleBuilder): Map<string, number> {
  return new Map([
    ['csr', emitCsr(module)],
    ['sret', emitSret(module)],
  ]);
}

/** csr(hart, number, operand, kind, writes): 1 where it is done; what was there before is at CSR_OLD. */
function emitCsr(module: ModuleBuilder): number {
  const writeStatus = emitWriteStatus(module);
  const { index, code: c } = module.func(undefined, [I32, I32, I64, I32, I32], [I32]);
  const old = c.local(I64);
  refuseUnlessPrivileged(c);
  ifCsr(c, CSR.sstatus);
  emitStatus(c, old, writeStatus);
  c.end();
  for (const [csr, offset, clear] of STORAGE) {
    ifCsr(c, csr);
    emitStorage(c, old, offset, clear);
    c.end();
  }
  c.i32(0);
  return index;
}

const [NUMBER, OPERAND, KIND, WRITES] = [1, 2, 3, 4];

function ifCsr(c: Code, csr: number): void {
  c.get(NUMBER).i32(csr).op('i32Eq').if();
}

function emitStatus(c: Code, old: number, writeStatus: number): void {
  pushStatus(c);
  c.set(old).get(WRITES).if();
  c.get(HART);
  pushCombined(c, old);
  c.call(writeStatus).op('i32Eqz');
  refuseIf(c);
  c.end();
  c.get(HART).get(old).mem('i64Store', L.CSR_OLD).i32(1).op('return');
}

function emitStorage(c: Code, old: number, offset: number, clear: number): void {
  c.get(HART).get(HART).mem('i64Load', offset).tee(old).mem('i64Store', L.CSR_OLD).get(WRITES).if();
  c.get(HART);
  pushCombined(c, old);
  if (clear !== 0) c.i64(~clear).op('i64And');
  c.mem('i64Store', offset).end().i32(1).op('return');
}

/** What the CSR becomes. */
function pushCombined(c: Code, old: number): void {
  c.get(KIND).i32(CSR_SET).op('i32Eq').if(I64);
  c.get(old).get(OPERAND).op('i64Or').else();
  c.get(KIND).i32(CSR_CLEAR).op('i32Eq').if(I64);
  c.get(old).get(OPERAND).i64(-1).op('i64Xor').op('i64And').else();
  c.get(OPERAND).end().end();
}

/** sstatus: its stored fields, FS, UXL, and SD where FS is Dirty. */
function pushStatus(c: Code): void {
  c.get(HART)
    .mem('i64Load32U', L.CSR_SSTATUS)
    .i64(BigInt(C.SSTATUS_UXL_64) << 32n)
    .op('i64Or');
  c.get(HART).mem('i64Load32U', L.FS).i64(C.SSTATUS_FS_SHIFT).op('i64Shl').op('i64Or');
  c.get(HART).mem('i32Load', L.FS).i32(3).op('i32Eq').op('i64ExtendI32U').i64(63).op('i64Shl').op('i64Or');
}

/** writeStatus(hart, value): 0 where that changes MXR, or lets in an interrupt that is pending. */
function emitWriteStatus(module: ModuleBuilder): number {
  const { index, code: c } = module.func(undefined, [I32, I64], [I32]);
  const [changed, low] = [c.local(I32), c.local(I32)];
  c.get(1).op('i32WrapI64').tee(low).get(HART).mem('i32Load', L.CSR_SSTATUS).op('i32Xor').tee(changed);
  c.i32(C.SSTATUS_MXR).op('i32And');
  refuseIf(c);
  c.get(low).i32(C.SSTATUS_SIE).op('i32And').if();
  refuseWhilePending(c);
  c.end();
  c.get(HART).get(low).i32(C.SSTATUS_WRITABLE).op('i32And').mem('i32Store', L.CSR_SSTATUS);
  c.get(HART).get(low).i32(C.SSTATUS_FS_SHIFT).op('i32ShrU').i32(3).op('i32And').mem('i32Store', L.FS);
  c.get(changed).i32(C.SSTATUS_SUM).op('i32And').if();
  c.get(HART).get(HART).mem('i32Load', L.TLB_SPACE).i32(L.TLB_SPACE_SUM).op('i32Add').i32(L.TLB_SUPERVISOR);
  c.get(low).i32(C.SSTATUS_SUM).op('i32And').op('select').mem('i32Store', L.DATA_CTX).end();
  c.i32(1);
  return index;
}

/** With a condition on the stack: the function answers 0 if it holds. */
function refuseIf(c: Code): void {
  c.if();
  c.i32(0).op('return').end();
}

function refuseUnlessPrivileged(c: Code): void {
  c.get(HART).mem('i32Load', L.PRIVILEGED).op('i32Eqz');
  refuseIf(c);
}

/** While an enabled interrupt is pending. */
function refuseWhilePending(c: Code): void {
  c.get(HART).mem('i32Load', L.CSR_SIP).get(HART).mem('i32Load', L.CSR_SIE).op('i32And');
  refuseIf(c);
}

/** sret(hart): mode and sstatus are as after it, pc is the caller's to set; 0 while an enabled interrupt is pending, which it might let in. */
function emitSret(module: ModuleBuilder): number {
  const { index, code: c } = module.func(undefined, [I32], [I32]);
  const status = c.local(I32);
  refuseUnlessPrivileged(c);
  refuseWhilePending(c);
  c.get(HART).mem('i32Load', L.CSR_SSTATUS).set(status).get(HART);
  c.get(status)
    .i32(~(C.SSTATUS_SIE | C.SSTATUS_SPP))
    .op('i32And')
    .i32(C.SSTATUS_SPIE)
    .op('i32Or');
  // SPIE is four bits above SIE.
  c.get(status).i32(C.SSTATUS_SPIE).op('i32And').i32(4).op('i32ShrU').op('i32Or').mem('i32Store', L.CSR_SSTATUS);
  c.get(HART).i64(-1).mem('i64Store', L.RESERVED_VA);
  // Back to S-mode: it is in it.
  c.get(status).i32(C.SSTATUS_SPP).op('i32And').op('i32Eqz').if();
  c.get(HART).i32(MODE_USER).mem('i32Store', L.MODE).get(HART).i32(0).mem('i32Store', L.PRIVILEGED);
  c.get(HART).get(HART).mem('i32Load', L.TLB_SPACE).mem('i32Store', L.DATA_CTX);
  c.get(HART).get(HART).mem('i32Load', L.TLB_SPACE).i32(L.TLB_SPACE_FETCH).op('i32Add').mem('i32Store', L.FETCH_CTX);
  c.end().i32(1);
  return index;
}
