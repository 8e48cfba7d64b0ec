import { model, slow } from 'unpin/explore';
import { GuestRam } from 'unpin/guestram';
import { checkHost, Host, MemorySwap } from 'unpin/mm';

/**
 * GuestRam as it is, on the mm thread, where it belongs: it and the mm take turns where a page is waited for. Its table is in no shared
 * memory, and no other thread may use it.
 */

const SOFT_TLB = 'guestram/softtlb.ts';

/** RAM of two pages with 1 and 5 in them, both in swap, each waited for by itself. */
function setup() {
  const swap = slow(new MemorySwap({ sizeBytes: 65536 }), 'read');
  const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 12, pageCluster: 0, swap });
  const ram = GuestRam.create(host, { lenBytes: 8192 });
  ram.writeUint8(0, 1);
  ram.writeUint8(4096, 5);
  host.reclaim.shrink(true, true, true);
  return { host, ram };
}

type State = ReturnType<typeof setup>;

/** The address is good until the next await alone: it is used where it was had. */
async function load({ host, ram }: State, addr: number): Promise<number> {
  for (;;) {
    const pa = ram.tryTranslate(addr, false);
    if (pa >= 0) return host.u8[pa]!;
    await ram.faultIn(addr, false);
  }
}

async function store({ host, ram }: State, addr: number, value: number): Promise<void> {
  for (;;) {
    const pa = ram.tryTranslate(addr, true);
    if (pa >= 0) {
      host.u8[pa] = value;
      return;
    }
    await ram.faultIn(addr, true);
  }
}

/** The guest reads and writes one page, waits for the other, and comes back to the first, which may have gone meanwhile. */
async function guest(state: State): Promise<void> {
  const seen = await load(state, 0);
  if (seen !== 1) throw new Error(`the guest read ${seen}`);
  await store(state, 0, 2);
  await store(state, 4096, 6);
  await store(state, 0, 3);
}

function evict({ host }: State): void {
  host.reclaim.shrink(true, true, true);
}

const MUTANTS = [
  {
    name: 'clear leaves the entry',
    file: SOFT_TLB,
    find: 'this.drop((address - this.va) / PAGE_SIZE); this.age();',
    replace: 'void address;',
    fails: /N3|N15/,
  },
  {
    name: 'an entry for reading may write',
    file: SOFT_TLB,
    find: 'if (write) this.writeTable[page] = pa;',
    replace: 'this.writeTable[page] = pa;',
    fails: /N15/,
  },
];

export const reclaim = model({
  name: 'GuestRam: its guest and reclaim',
  setup,
  preemptions: 1,
  threads: [['guest', 'reclaim', 'again']],
  mutants: MUTANTS,
  actors: { guest, reclaim: evict, again: evict },
  async check(state) {
    evict(state);
    const [first, second] = [new Uint8Array(1), new Uint8Array(1)];
    await state.ram.read(0, first);
    await state.ram.read(4096, second);
    checkHost(state.host);
    const values = [first[0], second[0]];
    return values.join() === '3,6' ? undefined : `N15: the guest's writes are lost: ${values.join()}`;
  },
});

export const discard = model({
  name: 'GuestRam: its guest and pages given up',
  setup,
  preemptions: 1,
  threads: [['guest', 'discard']],
  mutants: [MUTANTS[0]!],
  actors: {
    async guest(state) {
      await store(state, 0, 2);
      await store(state, 4096, 6);
      const seen = await load(state, 0);
      if (seen !== 0 && seen !== 2) throw new Error(`the guest read ${seen}`);
    },
    discard({ host, ram }) {
      ram.discard(0, 4096);
      const other = GuestRam.create(host, { lenBytes: 4096 });
      other.writeUint8(0, 77);
    },
  },
  check({ host, ram }) {
    const bytes = new Uint8Array(1);
    ram.mm.readSync(ram.va, bytes);
    if (ram.readUint8(0) !== bytes[0]) return `N3: the RAM holds ${bytes[0]}, its guest reads ${ram.readUint8(0)}`;
    checkHost(host);
    return undefined;
  },
});
