import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_REMOVE,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_LOCKED,
  MAP_PRIVATE,
  MCL_CURRENT,
  MCL_ONFAULT,
  MemorySwap,
  type Mm,
  mmuNotifierRegister,
  PROT_READ,
  RLIMIT_AS,
  RLIMIT_DATA,
  RLIMIT_MEMLOCK,
  VA_SIZE,
} from '../../src/mm/index.js';
import { snapshot } from './snapshot.js';

/**
 * Wrong arguments: each call is refused with Linux's errno, names what was wrong, and changes nothing. The errnos were taken from a
 * program on Linux 6.18 by a user without capabilities, where the case exists there; the address space of Linux/x86-64 ends at 2^47
 * less a page, ours at 2^39. Calls that are allowed to stop half-way have their tests with them.
 */

const P = 4096;
const BASE = 0x2000_0000;
const RW = 3;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const FIXED = ANON | MAP_FIXED;
const NOREPLACE = ANON | MAP_FIXED_NOREPLACE;

/** Pages 0 to 3 are writable, 4 is not mapped, 5 is read-only, 6 and 7 are writable; pages 0 and 6 were written to. */
function setUp(): { host: Host; mm: Mm } {
  const host = new Host({
    frames: 128,
    arenaBytes: 65536,
    swap: new MemorySwap({ sizeBytes: 2 ** 20 }),
    debug: true,
  });
  const mm = host.createMm({ name: 'guest' });
  mm.mmap(BASE, 8 * P, RW, FIXED);
  mm.munmap(BASE + 4 * P, P);
  mm.mmap(BASE + 5 * P, P, PROT_READ, FIXED);
  mm.writeSync(BASE, new Uint8Array([1]));
  mm.writeSync(BASE + 6 * P, new Uint8Array([2]));
  mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: () => 0 });
  return { host, mm };
}

type Row = [call: string, errno: string, says: RegExp, run: (mm: Mm) => unknown];

const NOT_INTEGERS = [Number.NaN, 1.5, Number.POSITIVE_INFINITY];

const mmap: Row[] = [
  ['length 0', 'EINVAL', /length 0/, (mm) => mm.mmap(0, 0, RW, ANON)],
  ['length -1', 'ENOMEM', /length -1/, (mm) => mm.mmap(0, -1, RW, ANON)],
  ['length -4096', 'ENOMEM', /length -4096/, (mm) => mm.mmap(0, -P, RW, ANON)],
  ['length beyond the address space', 'ENOMEM', /length/, (mm) => mm.mmap(0, 2 ** 40, RW, ANON)],
  ['more than is free', 'ENOMEM', /free pages in a row/, (mm) => mm.mmap(0, VA_SIZE - P, PROT_READ, ANON)],
  ['neither anonymous nor a file', 'EBADF', /flags 0x2 /, (mm) => mm.mmap(0, P, RW, MAP_PRIVATE)],
  ['that, and length 0', 'EBADF', /flags 0x2 /, (mm) => mm.mmap(0, 0, RW, MAP_PRIVATE)],
  ['no type', 'EINVAL', /flags 0x20 /, (mm) => mm.mmap(0, P, RW, MAP_ANONYMOUS)],
  ['type 3', 'EINVAL', /flags 0x23 /, (mm) => mm.mmap(0, P, RW, MAP_ANONYMOUS | 3)],
  ['type 15', 'EINVAL', /flags 0x2f /, (mm) => mm.mmap(0, P, RW, MAP_ANONYMOUS | 15)],
  ['huge pages', 'ENOMEM', /MAP_HUGETLB/, (mm) => mm.mmap(0, P, RW, ANON | 0x40000)],
  ['a stack that grows', 'EOPNOTSUPP', /MAP_GROWSDOWN/, (mm) => mm.mmap(0, P, RW, ANON | 0x100)],
  ['fixed, unaligned', 'EINVAL', /addr 0x20000001/, (mm) => mm.mmap(BASE + 1, P, RW, FIXED)],
  ['not replacing, unaligned', 'EINVAL', /addr 0x20000001/, (mm) => mm.mmap(BASE + 1, P, RW, NOREPLACE)],
  ['fixed at 0', 'EPERM', /addr 0x0/, (mm) => mm.mmap(0, P, RW, FIXED)],
  ['fixed below mmap_min_addr', 'EPERM', /at least 0x10000/, (mm) => mm.mmap(15 * P, P, RW, FIXED)],
  ['that, and unaligned', 'EINVAL', /addr 0x1001/, (mm) => mm.mmap(P + 1, P, RW, FIXED)],
  ['fixed over the end', 'ENOMEM', /below 2\^39/, (mm) => mm.mmap(VA_SIZE - P, 2 * P, RW, FIXED)],
  ['fixed at the end', 'ENOMEM', /below 2\^39/, (mm) => mm.mmap(VA_SIZE, P, RW, FIXED)],
  ['fixed, negative', 'ENOMEM', /addr -4096/, (mm) => mm.mmap(-P, P, RW, FIXED)],
  ['unaligned, over the end', 'ENOMEM', /below 2\^39/, (mm) => mm.mmap(BASE + 1, VA_SIZE, RW, FIXED)],
  ['not replacing what is there', 'EEXIST', /mapped/, (mm) => mm.mmap(BASE, P, RW, NOREPLACE)],
  ['not replacing a part', 'EEXIST', /mapped/, (mm) => mm.mmap(BASE + 4 * P, 2 * P, RW, NOREPLACE)],
  ['that, without a type', 'EEXIST', /mapped/, (mm) => mm.mmap(BASE, P, RW, MAP_ANONYMOUS | MAP_FIXED_NOREPLACE)],
  ['fixed, without a type', 'EINVAL', /flags/, (mm) => mm.mmap(BASE, P, RW, MAP_ANONYMOUS | MAP_FIXED)],
  ['locked beyond the limit', 'EAGAIN', /RLIMIT_MEMLOCK/, (mm) => mm.mmap(0, 16 << 20, RW, ANON | MAP_LOCKED)],
  ['that, without a type', 'EAGAIN', /RLIMIT_MEMLOCK/, (mm) => mm.mmap(0, 16 << 20, RW, MAP_ANONYMOUS | MAP_LOCKED)],
  ['more than frames and swap', 'ENOMEM', /promised at once/, (mm) => mm.mmap(0, 2 ** 22, RW, ANON)],
  ...NOT_INTEGERS.flatMap((bad): Row[] => [
    [`addr ${bad}`, 'EINVAL', /addr .* integer/, (mm) => mm.mmap(bad, P, RW, ANON)],
    [`length ${bad}`, 'EINVAL', /length .* integer/, (mm) => mm.mmap(0, bad, RW, ANON)],
    [`prot ${bad}`, 'EINVAL', /prot .* integer/, (mm) => mm.mmap(0, P, bad, ANON)],
    [`flags ${bad}`, 'EINVAL', /flags .* integer/, (mm) => mm.mmap(0, P, RW, bad)],
  ]),
];

const munmap: Row[] = [
  ['length 0', 'EINVAL', /length 0/, (mm) => mm.munmap(BASE, 0)],
  ['unaligned', 'EINVAL', /addr 0x20000001/, (mm) => mm.munmap(BASE + 1, P)],
  ['length -1', 'EINVAL', /length -1/, (mm) => mm.munmap(BASE, -1)],
  ['length -4096', 'EINVAL', /length -4096/, (mm) => mm.munmap(BASE, -P)],
  ['length over the end', 'EINVAL', /below 2\^39/, (mm) => mm.munmap(BASE, VA_SIZE)],
  ['at the end', 'EINVAL', /below 2\^39/, (mm) => mm.munmap(VA_SIZE, P)],
  ['negative', 'EINVAL', /-4096/, (mm) => mm.munmap(-P, P)],
  ...NOT_INTEGERS.flatMap((bad): Row[] => [
    [`addr ${bad}`, 'EINVAL', /addr .* integer/, (mm) => mm.munmap(bad, P)],
    [`length ${bad}`, 'EINVAL', /length .* integer/, (mm) => mm.munmap(BASE, bad)],
  ]),
];

const mprotect: Row[] = [
  ['unaligned', 'EINVAL', /addr 0x20000001/, (mm) => mm.mprotect(BASE + 1, P, 1)],
  ['unaligned, nothing', 'EINVAL', /addr 0x20000001/, (mm) => mm.mprotect(BASE + 1, 0, 1)],
  ['prot 64', 'EINVAL', /prot 0x40/, (mm) => mm.mprotect(BASE, P, 64)],
  ['prot -1', 'EINVAL', /prot -1/, (mm) => mm.mprotect(BASE, P, -1)],
  ['length -1', 'ENOMEM', /-1 bytes/, (mm) => mm.mprotect(BASE, -1, 1)],
  ['length -1, prot 64', 'ENOMEM', /-1 bytes/, (mm) => mm.mprotect(BASE, -1, 64)],
  ['length -4096', 'ENOMEM', /-4096 bytes/, (mm) => mm.mprotect(BASE, -P, 1)],
  ['negative', 'ENOMEM', /-4096/, (mm) => mm.mprotect(-P, P, 1)],
  ['both directions of growth', 'EINVAL', /prot 0x3000001/, (mm) => mm.mprotect(BASE, P, 0x3000001)],
  ['growth downwards', 'EINVAL', /prot 0x1000001/, (mm) => mm.mprotect(BASE, P, 0x1000001)],
  ['growth upwards', 'EINVAL', /prot 0x2000001/, (mm) => mm.mprotect(BASE, P, 0x2000001)],
  ['growth in a hole', 'ENOMEM', /address 0x20020000/, (mm) => mm.mprotect(BASE + 32 * P, P, 0x1000001)],
  ['a hole', 'ENOMEM', /address 0x20004000/, (mm) => mm.mprotect(BASE + 4 * P, P, 1)],
  ['a hole first', 'ENOMEM', /address 0x20004000/, (mm) => mm.mprotect(BASE + 4 * P, 2 * P, 1)],
  ['nothing there', 'ENOMEM', /address 0x20020000/, (mm) => mm.mprotect(BASE + 32 * P, P, 1)],
  ['beyond the address space', 'ENOMEM', /address 0x8000000000/, (mm) => mm.mprotect(VA_SIZE, P, 1)],
  ...NOT_INTEGERS.flatMap((bad): Row[] => [
    [`addr ${bad}`, 'EINVAL', /addr .* integer/, (mm) => mm.mprotect(bad, P, 1)],
    [`length ${bad}`, 'EINVAL', /length .* integer/, (mm) => mm.mprotect(BASE, bad, 1)],
    [`prot ${bad}`, 'EINVAL', /prot .* integer/, (mm) => mm.mprotect(BASE, P, bad)],
  ]),
];

const mlock: Row[] = [
  ['length -4096', 'ENOMEM', /addr and length/, (mm) => mm.mlock(BASE, -P)],
  ['negative', 'EINVAL', /addr and length/, (mm) => mm.mlock(-P, P)],
  ['a hole', 'ENOMEM', /address 0x20004000/, (mm) => mm.mlock(BASE + 4 * P, P)],
  ['a hole first', 'ENOMEM', /address 0x20004000/, (mm) => mm.mlock(BASE + 4 * P, 2 * P)],
  ['beyond the limit', 'ENOMEM', /RLIMIT_MEMLOCK/, (mm) => mm.mlock(BASE, 16 << 20)],
  ['beyond the address space', 'ENOMEM', /address 0x8000000000/, (mm) => mm.mlock(VA_SIZE, P)],
  ['flag 2', 'EINVAL', /flags 0x2/, (mm) => mm.mlock(BASE, P, 2)],
  ['flags -1', 'EINVAL', /flags -1/, (mm) => mm.mlock(BASE, P, -1)],
  ...NOT_INTEGERS.flatMap((bad): Row[] => [
    [`addr ${bad}`, 'EINVAL', /addr .* integer/, (mm) => mm.mlock(bad, P)],
    [`length ${bad}`, 'EINVAL', /length .* integer/, (mm) => mm.mlock(BASE, bad)],
    [`flags ${bad}`, 'EINVAL', /flags .* integer/, (mm) => mm.mlock(BASE, P, bad)],
  ]),
];

const munlock: Row[] = [
  ['length -4096', 'EINVAL', /addr and length/, (mm) => mm.munlock(BASE, -P)],
  ['a hole', 'ENOMEM', /address 0x20004000/, (mm) => mm.munlock(BASE + 4 * P, P)],
  ...NOT_INTEGERS.flatMap((bad): Row[] => [
    [`addr ${bad}`, 'EINVAL', /addr .* integer/, (mm) => mm.munlock(bad, P)],
    [`length ${bad}`, 'EINVAL', /length .* integer/, (mm) => mm.munlock(BASE, bad)],
  ]),
];

const mlockall: Row[] = [
  ['flags 0', 'EINVAL', /flags 0x0/, (mm) => mm.mlockall(0)],
  ['flag 8', 'EINVAL', /flags 0x8/, (mm) => mm.mlockall(8)],
  ['MCL_ONFAULT alone', 'EINVAL', /flags 0x4/, (mm) => mm.mlockall(MCL_ONFAULT)],
  ['an unknown flag more', 'EINVAL', /flags 0xd/, (mm) => mm.mlockall(MCL_CURRENT | MCL_ONFAULT | 8)],
  ...NOT_INTEGERS.map((bad): Row => [`flags ${bad}`, 'EINVAL', /flags .* integer/, (mm) => mm.mlockall(bad)]),
];

const madvise: Row[] = [
  ...[5, 7, 9999, -1, Number.NaN, 1.5].map(
    (bad): Row => [`advice ${bad}`, 'EINVAL', /advice .* MADV_/, (mm) => mm.madvise(BASE, P, bad)],
  ),
  // As a kernel that was built without merging of pages and without huge ones.
  ...[12, 13, 14, 15, 25].map(
    (bad): Row => [`advice ${bad}`, 'EINVAL', /advice .* MADV_/, (mm) => mm.madvise(BASE, P, bad)],
  ),
  ['unknown advice, nothing', 'EINVAL', /advice 9999/, (mm) => mm.madvise(BASE, 0, 9999)],
  ['removal from what is no file', 'EINVAL', /of a file/, (mm) => mm.madvise(BASE, P, MADV_REMOVE)],
  ['populate a hole', 'ENOMEM', /address 0x20004000/, (mm) => mm.madvise(BASE + 4 * P, P, MADV_POPULATE_READ)],
  ['populate without the right', 'EINVAL', /for writing/, (mm) => mm.madvise(BASE + 5 * P, P, MADV_POPULATE_WRITE)],
  ['unaligned', 'EINVAL', /addr 0x20000001/, (mm) => mm.madviseDontneed(BASE + 1, P)],
  ['unaligned, nothing', 'EINVAL', /addr 0x20000001/, (mm) => mm.madviseDontneed(BASE + 1, 0)],
  ['length -1', 'EINVAL', /-1 bytes/, (mm) => mm.madviseDontneed(BASE, -1)],
  ['negative', 'EINVAL', /-4096/, (mm) => mm.madviseDontneed(-P, P)],
  ['a hole', 'ENOMEM', /mapped/, (mm) => mm.madviseDontneed(BASE + 4 * P, P)],
  ['nothing there', 'ENOMEM', /mapped/, (mm) => mm.madviseDontneed(BASE + 32 * P, P)],
  ['beyond the address space', 'ENOMEM', /mapped/, (mm) => mm.madviseDontneed(VA_SIZE, P)],
];

const vec = new Uint8Array(16);

const mincore: Row[] = [
  ['unaligned', 'EINVAL', /addr 0x20000001/, (mm) => mm.mincore(BASE + 1, P, vec)],
  ['length -1', 'ENOMEM', /-1 bytes/, (mm) => mm.mincore(BASE, -1, vec)],
  ['over the end', 'ENOMEM', /below 2\^39/, (mm) => mm.mincore(BASE, VA_SIZE, vec)],
  ['negative', 'ENOMEM', /-4096/, (mm) => mm.mincore(-P, P, vec)],
  ['a hole', 'ENOMEM', /address 0x20004000/, (mm) => mm.mincore(BASE + 4 * P, P, vec)],
  [
    'no room for the answer',
    'EFAULT',
    /vec of 1 bytes must have 2/,
    (mm) => mm.mincore(BASE, 2 * P, new Uint8Array(1)),
  ],
];

const setrlimit: Row[] = [
  ['resource 3', 'EINVAL', /resource 3/, (mm) => mm.setrlimit(3 as never, 0)],
  ['-1 bytes', 'EINVAL', /limit -1/, (mm) => mm.setrlimit(RLIMIT_AS, -1)],
  ['NaN bytes', 'EINVAL', /limit NaN/, (mm) => mm.setrlimit(RLIMIT_DATA, Number.NaN)],
  ['resource 3', 'EINVAL', /resource 3/, (mm) => mm.getrlimit(3 as never)],
];

const CALLS = { mmap, munmap, mprotect, mlock, munlock, mlockall, madvise, mincore, setrlimit };

for (const [call, rows] of Object.entries(CALLS)) {
  test.each(rows)(`${call}: %s is %s, and changes nothing`, async (_what, errno, says, run) => {
    const { host, mm } = setUp();
    const before = snapshot(mm);
    const error = await Promise.resolve()
      .then(() => run(mm))
      .then(
        () => undefined,
        (e: unknown) => e,
      );
    expect(error).toMatchObject({ name: 'KernelError', code: errno, message: expect.stringMatching(says) });
    expect(snapshot(mm)).toEqual(before);
    checkHost(host);
  });
}

test('what Linux ignores is ignored: unknown bits of prot and flags, an address without MAP_FIXED, lengths of 0', async () => {
  const { host, mm } = setUp();
  for (const prot of [64, -1, 0x2000000]) expect(mm.mmap(0, P, prot, ANON)).toBeGreaterThan(0);
  expect(mm.mmap(0, P, RW, ANON | 0x4000000)).toBeGreaterThan(0);
  for (const addr of [2 ** 39, 2 ** 47, -P]) expect(mm.mmap(addr, P, RW, ANON)).toBeLessThan(VA_SIZE);
  // A hint is rounded down to its page, and up to the lowest address that may be mapped.
  expect(mm.mmap(BASE + 33 * P + 100, P, RW, ANON)).toBe(BASE + 33 * P);
  expect(mm.mmap(P, P, RW, ANON)).toBe(16 * P);
  expect(mm.mmap(100, P, RW, ANON)).toBeGreaterThan(16 * P);
  mm.munmap(BASE + 64 * P, P);
  mm.mprotect(BASE, 0, 64);
  mm.mprotect(BASE, P, RW | 8);
  await mm.mlock(BASE + 1, 0);
  await mm.mlock(BASE, 0);
  mm.munlock(BASE + 4 * P, 0);
  mm.madviseDontneed(BASE + 4 * P, 0);
  checkHost(host);
});

test('mlock and munlock round their start down, and do what lies before a hole', async () => {
  const { host, mm } = setUp();
  await mm.mlock(BASE + 100, P);
  expect(mm.vm.locked).toBe(2);
  await expect(mm.mlock(BASE, 6 * P)).rejects.toMatchObject({ code: 'ENOMEM' });
  expect(mm.vm.locked).toBe(4);
  expect(() => mm.munlock(BASE + 2 * P + 5, 4 * P)).toThrow(/ENOMEM: munlock: address 0x20004000/);
  expect(mm.vm.locked).toBe(2);
  checkHost(host);
});

test('with RLIMIT_MEMLOCK 0 nothing may be locked: EPERM; with less than a page it is too much', async () => {
  const { host, mm } = setUp();
  mm.setrlimit(RLIMIT_MEMLOCK, 0);
  for (const body of [() => mm.mlock(BASE, P), () => mm.mlock(BASE, 0), () => mm.mlockall(MCL_CURRENT)])
    await expect(body()).rejects.toMatchObject({ code: 'EPERM' });
  await expect(mm.mlock(BASE, P, 2)).rejects.toMatchObject({ code: 'EINVAL' });
  expect(() => mm.mmap(0, P, RW, ANON | MAP_LOCKED)).toThrow(/EPERM: mmap: RLIMIT_MEMLOCK/);
  expect(() => mm.mmap(BASE, P, RW, NOREPLACE | MAP_LOCKED)).toThrow(/EEXIST/);
  mm.munlock(BASE, P);
  mm.setrlimit(RLIMIT_MEMLOCK, 100);
  await expect(mm.mlock(BASE, P)).rejects.toMatchObject({ code: 'ENOMEM' });
  expect(() => mm.mmap(0, P, RW, ANON | MAP_LOCKED)).toThrow(/EAGAIN/);
  await mm.mlock(BASE, 0);
  checkHost(host);
});

test('an mm has 65530 mappings, and one more where no call has looked', () => {
  const { host, mm } = setUp();
  for (let i = 0; mm.vmas.length < 65531; i++) mm.mmap(0x4000_0000 + i * 2 * P, P, PROT_READ, FIXED);
  expect(() => mm.mmap(0, P, PROT_READ | 4, ANON)).toThrow(/ENOMEM: mmap: an mm has at most 65530 mappings/);
  expect(() => mm.munmap(BASE + P, P)).toThrow(/ENOMEM: munmap/);
  expect(() => mm.munlock(BASE + P, P)).not.toThrow();
  mm.munmap(BASE + 3 * P, P);
  expect(() => mm.munmap(BASE, 3 * P)).not.toThrow();
  expect(mm.vmas.length).toBe(65530);
  checkHost(host);
});
