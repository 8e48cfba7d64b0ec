import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CALL_NAMES, type CallName, type Program, type Step } from './step.js';
import { type Outcome, SMAPS_NAMES, type Trace, type View, type VmaView } from './trace.js';

/**
 * The real side: the programs run on this machine's Linux, in a child process compiled from peer/*.c, which forks afresh for
 * each program. Needs Linux, pages of 4096 bytes and a C compiler; no privileges.
 *
 * Use: `linuxMissing()`, `await LinuxPeer.start()`, `await run(program)` one at a time, `stop()`.
 */
const PEER_DIR = fileURLToPath(new URL('./peer/', import.meta.url));
const CACHE_DIR = fileURLToPath(new URL('../../node_modules/.cache/unpin-oracle/', import.meta.url));
const NR_ARGS = 20;
const STEP_BYTES = 8 + NR_ARGS * 8;

/** Why programs cannot run here. */
export function linuxMissing(): string | undefined {
  if (process.platform !== 'linux') return `Linux is not installed: this is ${process.platform}`;
  const version = spawnSync('cc', ['--version'], { stdio: 'ignore' });
  if (version.status !== 0) return 'a C compiler (cc) is not installed';
  const overcommit = readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').trim();
  if (overcommit === '2') return 'vm.overcommit_memory is 2 here: what is refused depends on the whole machine';
  return undefined;
}

/** Compiles the peer, once for each version of its source; returns the program's path. */
function buildPeer(): string {
  const sources = readdirSync(PEER_DIR).sort();
  const hash = createHash('sha256');
  for (const name of sources) hash.update(readFileSync(join(PEER_DIR, name)));
  const dir = cacheDir();
  const peer = join(dir, `peer-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(peer)) return peer;
  const unfinished = `${peer}.${process.pid}`;
  compile(
    sources.filter((name) => name.endsWith('.c')),
    unfinished,
  );
  renameSync(unfinished, peer);
  return peer;
}

function cacheDir(): string {
  try {
    mkdirSync(CACHE_DIR, { recursive: true });
    accessSync(CACHE_DIR, constants.W_OK | constants.X_OK);
    return CACHE_DIR;
  } catch {
    return mkdtempSync(join(tmpdir(), 'unpin-oracle-'));
  }
}

/** Static where the machine has a static libc: fewer pages that are not the program's. */
function compile(sources: string[], out: string): void {
  const args = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-o', out, ...sources];
  const fixed = spawnSync('cc', ['-static', ...args], { cwd: PEER_DIR });
  if (fixed.status === 0) return;
  const shared = spawnSync('cc', args, { cwd: PEER_DIR, encoding: 'utf8' });
  if (shared.status !== 0) throw new Error(`cc cannot compile ${PEER_DIR}: ${shared.stderr}`);
}

/** What programs find. */
export interface Base {
  /** Pages that a process of the peer has mapped before its program begins. */
  readonly totalPages: number;
  readonly dataPages: number;
  /** RLIMIT_MEMLOCK. */
  readonly memlockBytes: number;
  /** Mappings below 64 KiB are refused (vm.mmap_min_addr), as Unpin does. */
  readonly refusesLow: boolean;
}

export interface LinuxTrace extends Trace {
  readonly base: Base;
}

export class LinuxPeer {
  private readonly child: ChildProcess;
  private readonly numbers = new Map<CallName, number>();
  private chunks: Buffer[] = [];
  private length = 0;
  private wake: (() => void) | undefined;
  private gone: string | undefined;
  /** Programs take turns. */
  private last: Promise<void> = Promise.resolve();

  private constructor() {
    const { LC_ALL: _, ...env } = process.env;
    this.child = spawn(buildPeer(), [], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...env, LC_ALL: 'C', TMPDIR: tmpdir() },
    });
    this.child.stdout!.on('data', (chunk: Buffer) => {
      this.chunks.push(chunk);
      this.length += chunk.length;
      this.wake?.();
    });
    const end = (why: string) => {
      this.gone ??= why;
      this.wake?.();
    };
    this.child.on('error', (error) => end(String(error)));
    this.child.on('exit', (code, signal) => end(`exit code ${code}, signal ${signal}`));
    this.child.stdin!.on('error', (error) => end(String(error)));
  }

  static async start(): Promise<LinuxPeer> {
    const peer = new LinuxPeer();
    const [name, pageSize, ...calls] = (await peer.line()).split(' ');
    if (name !== 'oracle' || pageSize !== '4096') throw new Error(`the peer has pages of ${pageSize} bytes, not 4096`);
    for (const call of CALL_NAMES) {
      if (!calls.includes(call)) throw new Error(`the peer does not know ${call}`);
      peer.numbers.set(call, calls.indexOf(call));
    }
    return peer;
  }

  /** Runs a program; looks at all processes after each `observeEvery` steps, and at the end. */
  run(program: Program, observeEvery = 1): Promise<LinuxTrace> {
    const turn = this.last.then(() => this.runNow(program, observeEvery));
    this.last = turn.then(
      () => {},
      () => {},
    );
    return turn;
  }

  private async runNow(program: Program, observeEvery: number): Promise<LinuxTrace> {
    this.child.stdin!.write(this.encode(program, observeEvery));
    const header = await this.take(16);
    const status = Number(header.readBigUInt64LE(0));
    const bytes = await this.take(Number(header.readBigUInt64LE(8)));
    if (status !== 0) throw new Error(`the peer's program ended with status 0x${status.toString(16)}`);
    return decode(bytes, program);
  }

  stop(): void {
    this.child.stdin!.end();
    this.child.kill();
  }

  private encode(program: Program, observeEvery: number): Buffer {
    const bytes = Buffer.alloc(20 + program.steps.length * STEP_BYTES);
    const head = [
      program.steps.length,
      program.windowPages,
      program.leadPages,
      observeEvery,
      program.storage === 'file' ? 1 : 0,
    ];
    for (const [i, word] of head.entries()) bytes.writeUInt32LE(word, 4 * i);
    for (const [i, step] of program.steps.entries()) this.encodeStep(bytes, 20 + i * STEP_BYTES, step);
    return bytes;
  }

  private encodeStep(bytes: Buffer, at: number, step: Step): void {
    bytes.writeInt32LE(this.numbers.get(step.call)!, at);
    bytes.writeInt32LE(step.p, at + 4);
    for (const [i, arg] of step.args.entries()) bytes.writeBigInt64LE(BigInt(arg), at + 8 + 8 * i);
  }

  private async line(): Promise<string> {
    for (;;) {
      const all = Buffer.concat(this.chunks);
      const end = all.indexOf(10);
      if (end >= 0) return (await this.take(end + 1)).toString('utf8').trim();
      await this.more();
    }
  }

  private async take(lenBytes: number): Promise<Buffer> {
    while (this.length < lenBytes) await this.more();
    const all = Buffer.concat(this.chunks);
    this.chunks = [all.subarray(lenBytes)];
    this.length -= lenBytes;
    return all.subarray(0, lenBytes);
  }

  private async more(): Promise<void> {
    if (this.gone !== undefined) throw new Error(`the peer is gone: ${this.gone}`);
    await new Promise<void>((resolve) => {
      this.wake = resolve;
    });
  }
}

/** Reads the records that peer.h describes. */
class Records {
  private readonly bytes: Buffer;
  private at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get ended(): boolean {
    return this.at === this.bytes.length;
  }

  /** The letter of the next record, which is not consumed. */
  peek(): string {
    return this.ended ? '' : String.fromCharCode(this.bytes.readUInt32LE(this.at));
  }

  u32(): number {
    this.at += 4;
    return this.bytes.readUInt32LE(this.at - 4);
  }

  i64(): number {
    this.at += 8;
    return Number(this.bytes.readBigInt64LE(this.at - 8));
  }

  take(lenBytes: number): Uint8Array {
    this.at += lenBytes;
    return new Uint8Array(this.bytes.subarray(this.at - lenBytes, this.at));
  }

  expect(letter: string): void {
    if (this.peek() !== letter) throw new Error(`record '${this.peek()}' where '${letter}' was expected`);
    this.at += 4;
  }
}

function refusesLow(): boolean {
  return readFileSync('/proc/sys/vm/mmap_min_addr', 'utf8').trim() === '65536';
}

function decode(bytes: Buffer, program: Program): LinuxTrace {
  const records = new Records(bytes);
  records.expect('B');
  const base = {
    totalPages: records.i64(),
    dataPages: records.i64(),
    memlockBytes: records.i64(),
    refusesLow: refusesLow(),
  };
  const outcomes: Outcome[] = [];
  while (!records.ended) outcomes.push(decodeOutcome(records, program));
  return { base, outcomes };
}

function decodeOutcome(records: Records, program: Program): Outcome {
  records.expect('S');
  const ret = records.i64();
  const data = records.take(records.u32());
  if (records.peek() !== 'O') return { ret, data, views: undefined };
  const views = new Map<number, View>();
  while (records.peek() === 'O') {
    records.expect('O');
    const proc = records.u32();
    views.set(proc & 0xff, decodeView(records, program.windowPages, proc >>> 31 === 0));
  }
  return { ret, data, views };
}

function decodeView(records: Records, windowPages: number, knowsZero: boolean): View {
  const total = records.i64();
  const data = records.i64();
  const locked = records.i64();
  const vmas: VmaView[] = [];
  for (let n = records.u32(); n > 0; n--) vmas.push(decodeVma(records));
  const states = new Uint8Array(windowPages);
  const hashes = new Uint32Array(windowPages);
  for (let page = 0; page < windowPages; ) {
    const end = page + records.u32();
    states.fill(records.u32(), page, end);
    hashes.fill(records.u32(), page, end);
    page = end;
  }
  return { total, data, locked, vmas, states, hashes, knowsZero };
}

function decodeVma(records: Records): VmaView {
  const word = () => records.u32();
  const vma = { startPage: word(), endPage: word(), perms: word(), vmFlags: word() };
  const counts = SMAPS_NAMES.map(word);
  return { ...vma, counts, offset: records.i64(), file: records.i64() };
}
