import { beforeEach, describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  type Access,
  CSR,
  MODE_SUPERVISOR,
  MODE_USER,
  SSTATUS_SUM,
} from '../../src/riscv/index.js';
import * as L from '../../src/riscv/layout.js';
import { addi, ld, sfenceVma } from './assemble.js';
import { CODE, DATA, TestHart } from './testhart.js';

/** The hart's TLB: what each flush takes, and what a change of satp leaves (privileged manual, sections 12.1.11 and 12.2.1). */

const machine = new TestHart();
const { hart } = machine;
const { tlb } = hart;
const SV39 = 8n << 60n;
const VA = 0x12345000;
const KERNEL = -0x7fff0000;
const PAGE = 0x777;

const satpOf = (asid: number, ppn = 0x80) => SV39 | (BigInt(asid) << 44n) | BigInt(ppn);
const switchTo = (asid: number, ppn?: number) => machine.setCsr(CSR.satp, satpOf(asid, ppn));

function inMode(mode: number, sum = false): void {
  hart.setMode(MODE_SUPERVISOR);
  machine.setCsr(CSR.sstatus, BigInt(sum ? SSTATUS_SUM : 0));
  hart.setMode(mode);
}

const has = (va = VA, access: Access = ACCESS_READ) => tlb.lookup(va, access) >= 0;

/** The kernel's page, looked up as S-mode. */
function hasKernel(): boolean {
  inMode(MODE_SUPERVISOR);
  const found = has(KERNEL);
  inMode(MODE_USER);
  return found;
}

function fillKernel(global: boolean): void {
  inMode(MODE_SUPERVISOR);
  tlb.fill(KERNEL, PAGE, false, global);
  inMode(MODE_USER);
}

beforeEach(() => {
  machine.setCsr(CSR.satp, 0n);
  tlb.flushAll();
  switchTo(1);
  inMode(MODE_USER);
});

describe('address spaces', () => {
  it('find their entries again when they come back, and never those of others', () => {
    tlb.fill(VA, PAGE, false, false);
    switchTo(2);
    expect(has()).toBe(false);
    tlb.fill(VA, PAGE + 1, false, false);
    switchTo(1);
    expect(tlb.lookup(VA, ACCESS_READ)).toBe(PAGE * 4096);
    switchTo(2);
    expect(tlb.lookup(VA, ACCESS_READ)).toBe((PAGE + 1) * 4096);
  });

  it('of one ASID with two tables are two', () => {
    tlb.fill(VA, PAGE, false, false);
    switchTo(1, 0x81);
    expect(has()).toBe(false);
  });

  it('are flushed when their room is given to another', () => {
    for (let asid = 1; asid <= L.NR_TLB_SPACES + 1; asid++) {
      switchTo(asid);
      expect(has(), `ASID ${asid}`).toBe(false);
      tlb.fill(VA, PAGE, false, false);
    }
    switchTo(1);
    expect(has()).toBe(false);
  });

  it('each have what S-mode with SUM has used, apart from U-mode', () => {
    inMode(MODE_SUPERVISOR, true);
    tlb.fill(VA, PAGE, true, false);
    inMode(MODE_USER);
    expect(has(VA, ACCESS_WRITE)).toBe(false);
    inMode(MODE_SUPERVISOR, true);
    switchTo(2);
    expect(has(VA, ACCESS_WRITE)).toBe(false);
    switchTo(1);
    expect(has(VA, ACCESS_WRITE)).toBe(true);
  });

  it('share the entries of the supervisor that are global, and no others', () => {
    fillKernel(true);
    switchTo(2);
    expect(hasKernel()).toBe(true);
    fillKernel(false);
    switchTo(1);
    expect(hasKernel()).toBe(false);
  });

  it('share no fetches that are not global either', () => {
    inMode(MODE_SUPERVISOR);
    tlb.fill(KERNEL, PAGE, false, true);
    tlb.fillFetch(KERNEL, 64, false);
    switchTo(2);
    expect(has(KERNEL)).toBe(false);
  });

  it('without paging use nothing of those with it', () => {
    fillKernel(true);
    tlb.fill(VA, PAGE, false, false);
    machine.setCsr(CSR.satp, 0n);
    expect(has()).toBe(false);
    expect(hasKernel()).toBe(false);
  });
});

describe('flushes', () => {
  /** Entries of ASIDs 1 (the present one), 2 and 3. */
  function fillThree(): void {
    for (const asid of [3, 2, 1]) {
      switchTo(asid);
      tlb.fill(VA, PAGE, false, false);
      tlb.fill(VA + 4096, PAGE, false, false);
    }
    fillKernel(true);
  }

  /** In which ASIDs the page is, and the kernel's. */
  function left(va = VA): string {
    const spaces = [1, 2, 3].filter((asid) => {
      switchTo(asid);
      return has(va);
    });
    switchTo(1);
    return `${spaces.join(' ')}${hasKernel() ? ' kernel' : ''}`;
  }

  it('of a new hart leave nothing in memory that was whatever it was', () => {
    const { tlb: fresh } = new TestHart().hart;
    const found: number[] = [];
    for (const asid of [0, 1]) {
      fresh.switchSpace(asid, asid === 0 ? 0 : 8 << 28, false);
      fresh.forEach((va) => {
        found.push(va);
      });
    }
    expect(found).toEqual([]);
  });

  it('of all take all', () => {
    fillThree();
    tlb.flushAll();
    expect(left()).toBe('');
  });

  it('of an ASID take that one, present or not, and nothing global', () => {
    fillThree();
    tlb.flushAsid(2);
    expect(left()).toBe('1 3 kernel');
    tlb.flushAsid(1);
    expect(left()).toBe('3 kernel');
  });

  it('of an ASID take what the supervisor has that is not global', () => {
    fillThree();
    fillKernel(false);
    tlb.flushAsid(1);
    expect(left()).toBe('2 3');
  });

  it('of a page take it in all spaces', () => {
    fillThree();
    tlb.flushPage(VA);
    expect(left()).toBe(' kernel');
    expect(left(VA + 4096)).toBe('1 2 3 kernel');
    tlb.flushPage(KERNEL);
    expect(left(VA + 4096)).toBe('1 2 3');
  });

  it('by forbidding writes take those to the page in all spaces, and no reads', () => {
    const write = (asid: number) => {
      switchTo(asid);
      return has(VA, ACCESS_WRITE);
    };
    for (const asid of [2, 1]) {
      switchTo(asid);
      tlb.fill(VA, PAGE, true, false);
      tlb.fill(VA, PAGE, false, false);
    }
    tlb.forbidWrites(PAGE + 1);
    expect([write(1), write(2)]).toEqual([true, true]);
    tlb.forbidWrites(PAGE);
    expect([write(1), write(2), has()]).toEqual([false, false, true]);
  });

  it('are what sfence.vma asks for: of everything, an ASID, a page', () => {
    const fence = (word: number, rs1: number, rs2: number) => {
      // Before: code that is dropped takes along what other spaces have.
      machine.put(CODE, word);
      fillThree();
      // Of the supervisor, bare, so that the instruction itself can be fetched.
      machine.setCsr(CSR.satp, 0n);
      inMode(MODE_SUPERVISOR);
      machine.x[5] = BigInt(rs1);
      machine.x[6] = BigInt(rs2);
      expect(machine.step(BigInt(CODE)).trap).toBeUndefined();
      inMode(MODE_USER);
      return left();
    };
    expect(fence(sfenceVma(0, 6), 0, 2)).toBe('1 3');
    expect(fence(sfenceVma(5, 0), VA, 0)).toBe('');
    expect(fence(sfenceVma(5, 0), VA + 8192, 0)).toBe('1 2 3');
    expect(fence(sfenceVma(0, 0), 0, 0)).toBe('');
  });
});

describe('two places', () => {
  /** Pages whose first place is the same. */
  const SAME = L.TLB_ENTRIES * 4096;
  const [a, b] = [DATA, DATA + SAME];

  /** How often loads of both pages in turn ask the MMU. */
  function misses(nrRounds: number): number {
    let calls = 0;
    const { translate } = machine.mmu;
    machine.mmu.translate = (...args) => {
      calls++;
      return translate.apply(machine.mmu, args);
    };
    try {
      for (let round = 0; round < nrRounds; round++) {
        for (const va of [a, b]) {
          machine.x[11] = BigInt(va);
          machine.step(BigInt(CODE));
        }
      }
    } finally {
      machine.mmu.translate = translate;
    }
    return calls;
  }

  beforeEach(() => {
    machine.setCsr(CSR.satp, 0n);
    inMode(MODE_SUPERVISOR);
    machine.put(CODE, ld(10, 0, 11));
  });

  it('keep two pages that want the same first place, and both are found without the MMU', () => {
    misses(1);
    expect(misses(10)).toBe(0);
    expect(misses(10)).toBe(0);
  });

  it('are both emptied by a flush', () => {
    tlb.fill(a, PAGE, true, false);
    tlb.fill(b, PAGE + 1, true, false);
    expect([has(a, ACCESS_WRITE), has(b, ACCESS_WRITE)]).toEqual([true, true]);
    tlb.flushPage(a);
    expect([has(a, ACCESS_WRITE), has(b, ACCESS_WRITE)]).toEqual([false, true]);
    tlb.fill(a, PAGE, true, false);
    tlb.forbidWrites(PAGE + 1);
    expect([has(a, ACCESS_WRITE), has(b, ACCESS_WRITE)]).toEqual([true, false]);
  });

  it('are the same to generated code and to TypeScript, for any address', () => {
    for (let i = 0; i < 200; i++) {
      const va = ((Math.imul(i, 0x9e3779b1) >>> 1) & ~0xfff) >>> 0;
      tlb.fill(va, PAGE, true, false);
      tlb.fill((va ^ 0x400000 ^ ((i & 3) << 23)) >>> 0, PAGE + 1, true, false);
      tlb.flushPage(va);
      expect(has(va, ACCESS_WRITE), va.toString(16)).toBe(false);
    }
  });
});

describe('an instruction across two pages', () => {
  const FIRST = CODE + 0x4000;
  const across = (word: number) => {
    machine.put(FIRST + 4094, word);
    machine.put(FIRST + 4098, addi(0, 0, 0));
  };

  it('is decoded once, until one of the pages is written or the next is another', () => {
    machine.setCsr(CSR.satp, 0n);
    inMode(MODE_SUPERVISOR);
    across(addi(10, 10, 1));
    machine.x[10] = 0n;
    machine.step(BigInt(FIRST + 4094));
    const { onSlow, onFetch } = hart;
    let calls = 0;
    hart.onSlow = (record) => {
      calls++;
      return onSlow.call(hart, record);
    };
    hart.onFetch = () => {
      calls++;
      return onFetch.call(hart);
    };
    for (let i = 0; i < 10; i++) machine.step(BigInt(FIRST + 4094));
    expect([machine.x[10], calls]).toEqual([11n, 0]);
    hart.onSlow = onSlow;
    hart.onFetch = onFetch;
    // Its upper half, which lies in the second page, gets another immediate.
    machine.view.setUint16(FIRST + 4096 - 0x80000000, addi(10, 10, 5) >>> 16, true);
    hart.dropCode(machine.hostPage(FIRST + 4096));
    machine.step(BigInt(FIRST + 4094));
    expect(machine.x[10]).toBe(16n);
  });
});
