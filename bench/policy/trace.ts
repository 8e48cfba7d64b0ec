import { readFileSync, writeFileSync } from 'node:fs';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';

/**
 * Traces of page references: epochs, in each of which every page that was used appears once, in the order of first use, with
 * whether it was written. An epoch is short beside the time that a page stays in memory, so that what is lost, the order of
 * later uses within it, hardly matters; see record.ts.
 *
 * A file is a line of JSON, then numbers of 7 bits a byte: for each epoch its length, then for each page the distance from the one
 * before, its sign and the written bit in the lowest bits; all of it compressed by brotli.
 */
export interface Trace {
  readonly name: string;
  /** Pages are numbered below this. */
  readonly nrPages: number;
  /** page * 2 + (written ? 1 : 0) */
  readonly refs: Int32Array;
  /** Index in `refs` where each epoch ends. */
  readonly epochEnds: Int32Array;
}

/** Collects a trace. */
export class TraceBuilder {
  private readonly refs: number[] = [];
  private readonly epochEnds: number[] = [];
  /** Where the page stands in this epoch's references, by page. */
  private readonly seen = new Map<number, number>();

  touch(page: number, write: boolean): void {
    const at = this.seen.get(page);
    if (at === undefined) {
      this.seen.set(page, this.refs.length);
      this.refs.push(page * 2 + (write ? 1 : 0));
    } else if (write) this.refs[at]! |= 1;
  }

  endEpoch(): void {
    this.seen.clear();
    if (this.refs.length > (this.epochEnds.at(-1) ?? 0)) this.epochEnds.push(this.refs.length);
  }

  build(name: string): Trace {
    this.endEpoch();
    let most = 0;
    for (const ref of this.refs) if (ref > most) most = ref;
    return {
      name,
      nrPages: (most >> 1) + 1,
      refs: writtenFirst(Int32Array.from(this.refs), (most >> 1) + 1),
      epochEnds: Int32Array.from(this.epochEnds),
    };
  }
}

/** The first use of a page writes it: what nobody has ever written takes no memory, and there would be nothing to miss. */
function writtenFirst(refs: Int32Array, nrPages: number): Int32Array {
  const seen = new Uint8Array(nrPages);
  for (const [k, ref] of refs.entries()) {
    if (seen[ref >> 1] === 0) refs[k] = ref | 1;
    seen[ref >> 1] = 1;
  }
  return refs;
}

/** How many different pages a trace uses. */
export function countPages(trace: Trace): number {
  const used = new Uint8Array(trace.nrPages);
  for (const ref of trace.refs) used[ref >> 1] = 1;
  return used.reduce((n, u) => n + u, 0);
}

export function writeTrace(path: string, trace: Trace): void {
  const bytes: number[] = [];
  const put = (value: number) => {
    for (; value >= 128; value >>>= 7) bytes.push((value & 127) | 128);
    bytes.push(value);
  };
  let start = 0;
  let last = 0;
  for (const end of trace.epochEnds) {
    put(end - start);
    for (; start < end; start++) {
      const distance = (trace.refs[start]! >> 1) - last;
      last += distance;
      put(Math.abs(distance) * 4 + (distance < 0 ? 2 : 0) + (trace.refs[start]! & 1));
    }
  }
  const { name, nrPages, refs, epochEnds } = trace;
  const head = JSON.stringify({ name, nrPages, nrRefs: refs.length, nrEpochs: epochEnds.length });
  const all = Buffer.concat([Buffer.from(`${head}\n`), Buffer.from(bytes)]);
  writeFileSync(path, brotliCompressSync(all, { params: { [constants.BROTLI_PARAM_LGWIN]: 24 } }));
}

export function readTrace(path: string): Trace {
  const all = brotliDecompressSync(readFileSync(path));
  const headEnd = all.indexOf(10);
  const head = JSON.parse(all.toString('utf8', 0, headEnd)) as Record<'nrPages' | 'nrRefs' | 'nrEpochs', number> & {
    name: string;
  };
  const refs = new Int32Array(head.nrRefs);
  const epochEnds = new Int32Array(head.nrEpochs);
  let at = headEnd + 1;
  const take = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = all[at++]!;
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  let page = 0;
  for (let epoch = 0, k = 0; epoch < epochEnds.length; epoch++) {
    for (const end = k + take(); k < end; k++) {
      const code = take();
      page += (code & 2) !== 0 ? -(code >>> 2) : code >>> 2;
      refs[k] = page * 2 + (code & 1);
    }
    epochEnds[epoch] = k;
  }
  return { name: head.name, nrPages: head.nrPages, refs: writtenFirst(refs, head.nrPages), epochEnds };
}
