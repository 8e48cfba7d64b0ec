import type { RdmaStream } from '../../../src/rdma/wire/index.js';
import { concat } from './bytes.js';

/** Gives a stream what TCP brings, and keeps what it leaves. */
export class Feeder {
  private readonly stream: RdmaStream;
  private rest = new Uint8Array(0);

  constructor(stream: RdmaStream) {
    this.stream = stream;
  }

  /** How many bytes the stream has taken, of what it had left too. A copy is given, since what has been taken is nobody's any more. */
  give(bytes: Uint8Array): number {
    const all = concat(this.rest, bytes);
    const taken = this.stream.receive(all, 0, all.length);
    this.rest = all.slice(taken);
    return taken;
  }

  get nrLeft(): number {
    return this.rest.length;
  }
}
