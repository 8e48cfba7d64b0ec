import { connect, Server, type Socket } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { nodeStreamNet } from '../../src/node/rdmanet.js';
import type { Stream, StreamHandler } from '../../src/rdma/index.js';

/** What a NIC's listener gets of its streams, by whichever way it reads them. */

const BUFFER_BYTES = 1000;
const TOTAL_BYTES = 300_000;

/** Takes all that comes into a buffer that is shorter than a chunk, and pauses now and then. */
class Taker implements StreamHandler {
  readonly readBuffer = new Uint8Array(BUFFER_BYTES);
  readonly taken: number[] = [];
  stream!: Stream;
  nrPauses = 0;
  private isPaused = false;
  private onEnded = (): void => {};
  readonly whole = new Promise<void>((resolve) => {
    this.onEnded = resolve;
  });

  connected(): void {}

  data(nrBytes: number): void {
    if (this.isPaused) throw new Error('data of a stream that is paused');
    this.taken.push(...this.readBuffer.subarray(0, nrBytes));
    this.readBuffer.fill(0xee);
    if (this.taken.length % 7 !== 0) return;
    this.nrPauses++;
    this.isPaused = true;
    this.stream.pause();
    setImmediate(() => {
      this.isPaused = false;
      this.stream.resume();
    });
  }

  ended(): void {
    this.stream.end();
    this.onEnded();
  }

  closed(): void {}
}

/** Each connection that a server accepts, before its listener has it. */
function onAccepted(look: (socket: Socket) => void): void {
  const { emit } = Server.prototype;
  vi.spyOn(Server.prototype, 'emit').mockImplementation(function (this: Server, ...args: unknown[]) {
    if (args[0] === 'connection') look(args[1] as Socket);
    return (emit as (...args: unknown[]) => boolean).apply(this, args);
  });
}

afterEach(() => vi.restoreAllMocks());

test.each([
  ['taken over', false],
  ['read by the documented way, where its handle has not what is needed', true],
])('a stream that was accepted is %s', async (_how, lacks) => {
  let accepted: Socket | undefined;
  onAccepted((socket) => {
    accepted = socket;
    if (lacks) (socket as unknown as { _handle: Record<string, unknown> })._handle.useUserBuffer = undefined;
  });
  const taker = new Taker();
  const listener = await nodeStreamNet().listen({ host: '127.0.0.1', port: 0 }, 1, (stream) => {
    taker.stream = stream;
    return taker;
  });
  const sent = Uint8Array.from({ length: TOTAL_BYTES }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
  const peer = connect(listener.localAddr.port, '127.0.0.1');
  peer.end(sent);
  await taker.whole;
  expect(Buffer.from(taker.taken).equals(sent)).toBe(true);
  expect(taker.nrPauses).toBeGreaterThan(0);
  expect(accepted!.destroyed).toBe(!lacks);
  listener.close();
});
