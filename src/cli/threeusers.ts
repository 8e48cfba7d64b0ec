import { KernelError } from '../base/index.js';
import { GuestRam } from '../guestram/index.js';
import { type Host, MAP_ANONYMOUS, MAP_PRIVATE, PAGE_SIZE, PROT_READ, PROT_WRITE } from '../mm/index.js';
import { PteNotifier, pteNotifierRegister } from '../notifier/index.js';

/**
 * The proposal's before and after, as a workload: three users that keep page tables of their own (GuestRam), whose memory together is
 * three times the host's frames. It knows neither Node nor a browser: `unpin start` runs it, and a worker in Chromium does.
 *
 * Use: `lockAll(host)` for the before; `new ThreeUsers(host, options)`, `run()`, `destroy()` for the after.
 */

const MIB = 2 ** 20;
export const FRAMES_BYTES = 32 * MIB;
export const USERS_BYTES = [24 * MIB, 32 * MIB, 40 * MIB];
/** What swap must hold of it, and some more. */
export const SWAP_BYTES = 128 * MIB;

const WORDS_PER_PAGE = PAGE_SIZE / 4;
/** Pages until others have their turn. */
const TURN_PAGES = 64;
/** Prime, so that steps of so many pages reach every page. */
const SCATTER = 7919;

export interface Locking {
  readonly user: number;
  readonly lenBytes: number;
  /** Undefined: locked. */
  readonly refusal: KernelError | undefined;
}

/** As before notifiers: each user locks all of its memory. Ends with the first that is refused; what was locked is given back. */
export async function lockAll(host: Host): Promise<Locking[]> {
  const done: Locking[] = [];
  const mms = USERS_BYTES.map((lenBytes, user) => host.createMm({ name: nameOf(user), rlimitMemlock: lenBytes }));
  for (const [user, lenBytes] of USERS_BYTES.entries()) {
    const va = mms[user]!.mmap(0, lenBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    const refusal = await mms[user]!.mlock(va, lenBytes).then(() => undefined, asRefusal);
    done.push({ user, lenBytes, refusal });
    if (refusal !== undefined) break;
  }
  for (const mm of mms) mm.exit();
  return done;
}

function asRefusal(error: unknown): KernelError {
  if (error instanceof KernelError) return error;
  throw error;
}

export interface ThreeUsersOptions {
  /** Resolves when other work (I/O, drawing) had its turn. */
  readonly turn: () => Promise<void>;
  /** Told of each `clear(vma, address)`, as the users are. */
  readonly onClear?: (user: number, address: number) => void;
  /** Told when a user has done something with all of its memory. */
  readonly onPass?: (user: number, pass: Pass) => void;
}

export type Pass = 'written' | 'rewritten' | 'verified';
const NR_PASSES = 3;

export class ThreeUsers {
  readonly users: readonly User[];

  constructor(host: Host, options: ThreeUsersOptions) {
    this.users = USERS_BYTES.map((lenBytes, user) => new User(host, user, lenBytes, options));
  }

  /** All three at once. Rejects with KernelError EIO where a byte is not what was written. */
  async run(): Promise<void> {
    await Promise.all(this.users.map((user) => user.run()));
  }

  destroy(): void {
    for (const user of this.users) user.ram.destroy();
  }
}

export class User {
  readonly name: string;
  readonly ram: GuestRam;
  verifiedBytes = 0;
  /** Of all passes. */
  pagesDone = 0;
  readonly pagesToDo: number;
  private readonly seed: number;
  private readonly nrPages: number;
  private readonly words: Int32Array;
  private readonly options: ThreeUsersOptions;

  constructor(host: Host, user: number, lenBytes: number, options: ThreeUsersOptions) {
    this.name = nameOf(user);
    this.seed = user;
    this.nrPages = lenBytes / PAGE_SIZE;
    this.pagesToDo = NR_PASSES * this.nrPages;
    this.words = new Int32Array(host.memory.buffer);
    this.options = options;
    this.ram = GuestRam.create(host, { lenBytes, name: this.name });
    if (options.onClear !== undefined) this.watch(options.onClear);
  }

  /** A second notifier on the same VMA: it sees what the user's own is told. */
  private watch(onClear: (user: number, address: number) => void): void {
    const clear = (_pn: PteNotifier, _vma: unknown, address: number) => onClear(this.seed, address);
    pteNotifierRegister(new PteNotifier({ clear }), this.ram.mm.findVma(this.ram.va)!);
  }

  async run(): Promise<void> {
    await this.pass('written', 1, true, (page) => this.fill(page, 1));
    await this.pass('rewritten', SCATTER, true, (page) => this.rewrite(page));
    await this.pass('verified', SCATTER + 2, false, (page) => this.verify(page, 2));
  }

  /** Visits every page, each `stride` pages after the last; while one waits for a page, the other users run. */
  private async pass(name: Pass, stride: number, write: boolean, visit: (page: number) => void): Promise<void> {
    const { ram, nrPages } = this;
    for (let i = 0, page = 0; i < nrPages; i++, page = (page + stride) % nrPages) {
      while (ram.tryTranslate(page * PAGE_SIZE, write) < 0) await ram.faultIn(page * PAGE_SIZE, write);
      visit(page);
      this.pagesDone++;
      if (i % TURN_PAGES === 0) await this.options.turn();
    }
    this.options.onPass?.(this.seed, name);
  }

  private fill(page: number, version: number): void {
    const at = this.ram.translateForWrite(page * PAGE_SIZE) >>> 2;
    let value = this.firstWord(page, version);
    for (let i = 0; i < WORDS_PER_PAGE; i++, value = nextWord(value)) this.words[at + i] = value;
  }

  private rewrite(page: number): void {
    this.verify(page, 1);
    this.fill(page, 2);
  }

  private verify(page: number, version: number): void {
    const at = this.ram.translate(page * PAGE_SIZE) >>> 2;
    let value = this.firstWord(page, version);
    for (let i = 0; i < WORDS_PER_PAGE; i++, value = nextWord(value)) {
      if (this.words[at + i] !== value) this.wrong(page * PAGE_SIZE + i * 4, this.words[at + i]!, value);
    }
    this.verifiedBytes += PAGE_SIZE;
  }

  private wrong(address: number, found: number, value: number): never {
    const hex = (word: number) => `0x${(word >>> 0).toString(16)}`;
    throw new KernelError('EIO', this.name, `the word at ${hex(address)} is ${hex(found)}; ${hex(value)} was written`);
  }

  private firstWord(page: number, version: number): number {
    return Math.imul((this.seed + 1) * 0x1000000 + version * 0x100000 + page, 0x9e3779b1) | 1;
  }
}

function nextWord(value: number): number {
  return (Math.imul(value, 0x2c1b3c6d) + 0x3d4d51cb + (value >>> 15)) | 0;
}

function nameOf(user: number): string {
  return `user ${user + 1}`;
}
