import { type Crc32c, RdmaStream, type StreamOptions } from '../../../src/rdma/wire/index.js';
import { FlatNic } from './flatnic.js';

/** Two streams joined by two pipes of bytes, which are cut as `cut` says; both ends are driven until nothing moves any more. */
export class Pair {
  readonly a = new FlatNic();
  readonly b = new FlatNic();
  readonly streamA: RdmaStream;
  readonly streamB: RdmaStream;
  readonly crc: Crc32c | undefined;
  private readonly cut: (max: number) => number;
  private readonly pipes: [Pipe, Pipe] = [new Pipe(), new Pipe()];

  constructor(
    crc: Crc32c | undefined,
    options: Partial<StreamOptions> = {},
    cut: (max: number) => number = (max) => max,
  ) {
    const common = { crc, ird: 4, ord: 4, ...options };
    this.crc = crc;
    this.cut = cut;
    this.streamA = new RdmaStream(this.a, { ...common, initiator: true });
    this.streamB = new RdmaStream(this.b, { ...common, initiator: false });
  }

  /** Until neither end sends or takes anything more. */
  run(): void {
    let idle = 0;
    // A stall is tried again: `absent` decides anew each time.
    while (idle < 50) {
      const moved =
        this.send(this.streamA, this.pipes[0]) +
        this.send(this.streamB, this.pipes[1]) +
        this.deliver(this.streamB, this.pipes[0]) +
        this.deliver(this.streamA, this.pipes[1]);
      idle = moved > 0 ? 0 : idle + 1;
    }
  }

  private send(stream: RdmaStream, pipe: Pipe): number {
    const out = new Uint8Array(512 + this.cut(70_000));
    const end = stream.transmit(out, 0, out.length);
    pipe.push(out.subarray(0, end));
    return end;
  }

  private deliver(stream: RdmaStream, pipe: Pipe): number {
    // A copy, since what has been taken is nobody's any more.
    const chunk = pipe.bytes.slice(0, this.cut(pipe.bytes.length));
    const taken = stream.receive(chunk, 0, chunk.length);
    if (taken < chunk.length && !stream.rxStalled) throw new Error('bytes were left without a stall');
    pipe.bytes = pipe.bytes.subarray(taken);
    return taken;
  }
}

class Pipe {
  bytes = new Uint8Array(0);

  push(more: Uint8Array): void {
    const all = new Uint8Array(this.bytes.length + more.length);
    all.set(this.bytes);
    all.set(more, this.bytes.length);
    this.bytes = all;
  }
}
