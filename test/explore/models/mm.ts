import { model } from 'unpin/explore';
import { checkHost, MAP_ANONYMOUS, MAP_PRIVATE, mmuNotifierUnregister, PROT_READ, PROT_WRITE } from 'unpin/mm';
import { Device } from '../externaldevice.js';
import {
  andNoRelease,
  lateBracket,
  lateSeq,
  noBracket,
  noBracketOfRanges,
  noCount,
  noDead,
  noSeq,
  noZap,
} from '../externalmutants.js';
import { coherent, invariant, migrate, nothingLost, reader, setup, shrink, writer } from '../onepage.js';
import { byteAt } from '../world.js';

/**
 * What the mm does to a page, on its own thread, against devices on threads of theirs that read and write it through an external
 * table: fork, copy-on-write, mprotect, mremap, migration, reclaim, exit, unregistration.
 *
 * A device does its access under its own lock, as a vCPU does within guest mode and a NIC within a copy: what takes its entry away waits for that.
 */

const DEVICE = 'explore/externaldevice.ts';

export const forkAndWriter = model({
  name: 'fork and a writer',
  setup,
  invariant,
  mutants: [
    noSeq,
    noZap,
    noBracket('fault/fork.ts'),
    {
      name: 'the parent keeps its right to write',
      file: 'mm/fault/fork.ts',
      find: 'if (shared !== pte) words.writeOnce(from + k, shared);',
      replace: '',
    },
  ],
  actors: {
    fork(state) {
      state.child = state.mm.fork();
      state.seen = byteAt(state.child, state.va);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.child!, state.va);
    if (now !== state.seen) return `N20: the child saw ${state.seen} after the fork, and ${now} later`;
    return coherent(state) ?? nothingLost(state);
  },
});

export const copyOnWriteAndReader = model({
  name: 'copy-on-write and a reader',
  setup() {
    const state = setup();
    state.child = state.mm.fork();
    return state;
  },
  invariant,
  mutants: [
    noSeq,
    noZap,
    noBracket('fault/cow.ts'),
    lateBracket('fault/cow.ts', 'MMU_NOTIFY_CLEAR, vpn, vpn + 1', 'mm.pageTable.set(i, mkPte(copy, WRITABLE));'),
    {
      name: 'the bracket of a copy ends before the new page is mapped',
      edits: [
        { file: 'mm/fault/cow.ts', find: 'mmuNotifierInvalidateRangeEnd(mm);', replace: '' },
        {
          file: 'mm/fault/cow.ts',
          find: 'mm.pageTable.set(i, mkPte(copy, WRITABLE));',
          replace: 'mmuNotifierInvalidateRangeEnd(mm); mm.pageTable.set(i, mkPte(copy, WRITABLE));',
        },
      ],
    },
    {
      name: 'a page that is shared still is reused in place',
      file: 'mm/fault/cow.ts',
      find: 'return refcount[pfn] === 1;',
      replace: 'return refcount[pfn]! <= 2;',
      fails: /^check: N20: /,
    },
  ],
  actors: {
    write(state) {
      state.mm.writeSync(state.va, new Uint8Array([2]));
      state.wrote = true;
    },
    reader,
  },
  check(state) {
    if (byteAt(state.child!, state.va) !== 1) return 'N20: the child sees the write of the parent';
    return coherent(state) ?? nothingLost(state);
  },
});

export const mprotectAndWriter = model({
  name: 'mprotect and a writer',
  setup,
  invariant,
  mutants: [noSeq, noZap, noBracket('vma/mprotect.ts')],
  actors: {
    mprotect(state) {
      state.mm.mprotect(state.va, 4096, PROT_READ);
      state.seen = byteAt(state.mm, state.va);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.mm, state.va);
    if (now !== state.seen) return `M26: ${state.seen} when it was read-only already, ${now} later`;
    return coherent(state) ?? nothingLost(state);
  },
});

export const migrateAndWriter = model({
  name: 'migration and a writer',
  setup,
  invariant,
  mutants: [
    noSeq,
    noZap,
    noCount,
    {
      name: 'no bracket in migrate.ts',
      file: 'mm/rmap/migrate.ts',
      find: 'this.bracket.start(blockable);',
      replace: '',
    },
    {
      name: 'the dirty bits stay behind',
      edits: [
        {
          file: 'mm/rmap/migrate.ts',
          find: 'pageTable.set(i, migrationToPte(pte, this.to));',
          replace: 'pageTable.set(i, migrationToPte(pte, this.to) & ~8);',
        },
        {
          file: 'mm/rmap/migrate.ts',
          find: 'frames.moveRow(from, to);',
          replace: 'frames.moveRow(from, to); frames.flags[to] = frames.flags[to]! & ~1;',
        },
      ],
    },
    {
      name: 'no migration entry: the page is still there while it is copied',
      edits: [
        {
          file: 'mm/rmap/migrate.ts',
          find: 'mkMigrationPte(pageTable.words.readOnce(i))',
          replace: 'pageTable.words.readOnce(i)',
        },
        {
          file: 'mm/rmap/migrate.ts',
          find: 'if (pteIsMigration(pte) && migrationPfn(pte) === this.from)',
          replace: 'if (pte >>> 12 === this.from)',
        },
        {
          file: 'mm/rmap/migrate.ts',
          find: 'migrationToPte(pte, this.to)',
          replace: '(pte & 0xfff) | (this.to << 12)',
        },
        { file: DEVICE, find: 'const stale = this.seq.readRetry(seq, this.va);', replace: 'const stale = seq < 0;' },
      ],
    },
  ],
  actors: {
    migrate,
    writer,
  },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const mremapAndWriter = model({
  name: 'mremap and a writer',
  setup,
  invariant,
  mutants: [
    noSeq,
    noZap,
    noBracket('vma/mremap.ts'),
    lateBracket('vma/mremap.ts', 'MMU_NOTIFY_UNMAP, r.oldVpn, oldEnd', 'const moved = nrMoved === r.oldNr;'),
  ],
  actors: {
    mremap(state) {
      state.mm.mremap(state.va, 4096, 4096, 3, state.va + 2 ** 21);
      state.seen = byteAt(state.mm, state.va + 2 ** 21);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.mm, state.va + 2 ** 21);
    if (now !== state.seen) return `M21: ${state.seen} at the new address, ${now} later, written through the old one`;
    return coherent(state);
  },
});

export const reclaimAndWriter = model({
  name: 'reclaim and a writer',
  setup,
  invariant,
  mutants: [noSeq, noZap, noCount],
  actors: { reclaim: shrink, writer },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const exitAndReaders = model({
  name: 'exit and two readers',
  setup() {
    const state = setup();
    return { ...state, other: new Device(state.mm, state.va, 'other') };
  },
  preemptions: 1,
  mutants: [noSeq, noZap, noBracketOfRanges('vma/mmap.ts')].map(andNoRelease),
  actors: {
    exit: ({ mm }) => mm.exit(),
    reader,
    other: ({ other }) => void other.read(),
  },
  check(state) {
    const left = state.device.frame | state.other.frame;
    if (left !== 0) return `M9: after exit a device maps frame ${left}`;
    checkHost(state.host);
    return undefined;
  },
});

export const unregisterAndReader = model({
  name: 'unregister, munmap and a reader',
  setup,
  invariant,
  mutants: [
    noDead,
    {
      name: 'unregister does not release',
      file: 'mm/notifier/notifier.ts',
      find: `this.releaseOne(sub);
    this.remove(sub);`,
      replace: 'this.remove(sub);',
    },
  ],
  actors: {
    mm({ mm, va, device }) {
      mmuNotifierUnregister(device.sub!);
      mm.munmap(va, 4096);
    },
    reader,
  },
  check({ host, device }) {
    if (device.frame !== 0) return `N17: after it was unregistered the device maps frame ${device.frame}`;
    checkHost(host);
    return undefined;
  },
});

export const dontneedAndReader = model({
  name: 'DONTNEED and a reader',
  setup,
  invariant,
  mutants: [
    noSeq,
    lateSeq,
    noZap,
    noBracket('vma/unmap.ts'),
    lateBracket('vma/unmap.ts', 'event, startVpn, endVpn', 'zapPages(vma, startVpn, endVpn);'),
  ],
  actors: {
    dontneed(state) {
      state.mm.madviseDontneed(state.va, 4096);
      state.child = state.host.createMm();
      state.child.writeSync(
        state.child.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS),
        new Uint8Array([77]),
      );
    },
    reader,
  },
  check: coherent,
});
