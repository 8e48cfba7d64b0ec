import { type Crc32c, RdmaStream, type StreamOptions } from '../../../src/rdma/wire/index.js';
import { Feeder } from './feeder.js';
import { FlatNic } from './flatnic.js';

/** Two streams joined by two pipes of bytes, which are cut as `cut` says; both ends are driven until nothing moves any more. */
export class Pair {
  readonly a = new FlatNic();
  readonly b = new FlatNic();
  readonly streamA: RdmaStream;
  readonly streamB: RdmaStream;
  readonly crc: Crc32c | undefined;
  private readonly cut: (max: number) => number;
  readonly feederA: Feeder;
  readonly feederB: Feeder;
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
    this.feederA = new Feeder(this.streamA);
    this.feederB = new Feeder(this.streamB);
  }

  /** Until neither end sends or takes anything more. */
  run(): void {
    let idle = 0;
    // A stall is tried again: `absent` decides anew each time.
    while (idle < 50) {
      const moved =
        this.send(this.streamA, this.pipes[0]) +
        this.send(this.streamB, this.pipes[1]) +
        this.deliver(this.streamB, this.feederB, this.pipes[0]) +
        this.deliver(this.streamA, this.feederA, this.pipes[1]);
      idle = moved > 0 ? 0 : idle + 1;
    }
  }

  private send(stream: RdmaStream, pipe: Pipe): number {
    const out = new Uint8Array(512 + this.cut(70_000));
    const end = stream.transmit(out, 0, out.length);
    pipe.push(out.subarray(0, end));
    return end;
  }

  /** Bytes that were brought or taken: none from the pipe while the stream holds them back. */
  private deliver(stream: RdmaStream, feeder: Feeder, pipe: Pipe): number {
    const nr = stream.rxStalled ? 0 : this.cut(pipe.bytes.length);
    const taken = feeder.give(pipe.bytes.subarray(0, nr));
    pipe.bytes = pipe.bytes.subarray(nr);
    return nr + taken;
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
