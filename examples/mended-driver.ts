import { model } from 'unpin/explore';
import {
  cpuRelax,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
  Words,
} from 'unpin/mm';
import { PteNotifier, pteNotifierReadBegin, pteNotifierReadRetry, pteNotifierRegister } from 'unpin/notifier';

/**
 * The driver of broken-driver.ts, mended: it reads the notifier's sequence number before it looks the page up, and asks under its
 * lock whether that still holds before it fills its entry in.
 *
 *   npx unpin explore examples/mended-driver.ts
 */

const LOCK = 0;
const ENTRY = 1;

class Driver {
  readonly words: Words;
  private readonly mm: Mm;
  private readonly va: number;
  private readonly pn = new PteNotifier({ clear: () => this.clear() });

  constructor(mm: Mm, va: number) {
    this.mm = mm;
    this.va = va;
    const addr = mm.host.arenaAlloc(8, 4);
    this.words = new Words(mm.host.memory, addr, 2, { word: (i) => (i === LOCK ? 'driver' : 'entry') });
    pteNotifierRegister(this.pn, mm.findVma(va)!);
  }

  /** The host takes the page away. */
  private clear(): void {
    this.words.lock(LOCK);
    this.words.writeOnce(ENTRY, 0);
    this.words.unlock(LOCK);
  }

  /** The device wants the page. */
  fault(): void {
    for (;;) {
      const seq = pteNotifierReadBegin(this.pn);
      const pfn = this.mm.tryGetPage(this.va, 0);
      if (pfn < 0) return; // it has to be swapped in first
      this.words.lock(LOCK);
      const stale = pteNotifierReadRetry(this.pn, seq, this.va);
      if (!stale) this.words.writeOnce(ENTRY, pfn);
      this.words.unlock(LOCK);
      this.mm.putPage(pfn);
      if (!stale) return;
      cpuRelax();
    }
  }
}

function setup() {
  const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 8, swap: new MemorySwap({ sizeBytes: 65536 }) });
  const mm = host.createMm();
  const va = mm.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va, new Uint8Array([1]));
  return { host, mm, va, driver: new Driver(mm, va) };
}

export default model({
  name: 'mended driver',
  setup,
  actors: {
    reclaim: ({ host }) => void host.reclaim.shrink(true, true, true),
    fault: ({ driver }) => driver.fault(),
  },
  check({ mm, va, driver }) {
    const entry = driver.words.load(ENTRY);
    if (entry !== 0 && entry !== mm.tryGetPage(va, 0))
      return `N3: the device still maps frame ${entry}, which the page has left`;
  },
});
