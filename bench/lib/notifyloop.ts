import { FAULT_FLAG_WRITE, Host, MAP_ANONYMOUS, MAP_PRIVATE, PAGE_SIZE } from '../../src/mm/index.js';
import { registerDriver } from './notifydriver.js';

/**
 * The program whose instructions bench/notify counts (insns.ts): pages taken away one by one by MADV_DONTNEED, with the driver that it was bundled with, if
 * any. Once it is warm it marks stretches of as many calls as its arguments say.
 */
declare const __DRIVER__: 'none' | 'zaps' | 'counts';
const NR_PAGES = 512;
const MARK = 0o777;
const NR_WARMING = 300;
const host = new Host({ frames: NR_PAGES + 64, arenaBytes: 4096 });
const mm = host.createMm();
const va = mm.mmap(2 ** 30, NR_PAGES * PAGE_SIZE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
if (__DRIVER__ !== 'none') registerDriver(host, mm, va, NR_PAGES, __DRIVER__ === 'counts');

function touch(): void {
  for (let page = 0; page < NR_PAGES; page++) mm.putPage(mm.tryGetPage(va + page * PAGE_SIZE, FAULT_FLAG_WRITE));
}

function zap(nrCalls: number): void {
  for (let page = 0; page < nrCalls; page++) mm.madviseDontneed(va + page * PAGE_SIZE, PAGE_SIZE);
}

/** The system call before and after it is a mark if `mask` is. */
function stretch(nrCalls: number, mask: number): void {
  touch();
  const before = process.umask(mask);
  zap(nrCalls);
  process.umask(mask);
  process.umask(before);
}

const lengths = process.argv.slice(2).map(Number);
for (let n = 0; n < NR_WARMING; n++) for (const nrCalls of [NR_PAGES, ...lengths]) stretch(nrCalls, MARK - 1);
for (const nrCalls of lengths) stretch(nrCalls, MARK);
