import type { WasmMemory } from '../base/index.js';

/**
 * What a device needs of the place it runs in: a clock, timers, random keys, connections, and perhaps a thread. Injected, since the core layers know
 * neither Node nor the DOM; `nodeRdmaEnvironment()` of `unpin/node` has one for Node, and tests have their own.
 */
export interface RdmaEnvironment {
  /** Milliseconds from any fixed point; monotonic, with fractions. */
  nowMs(): number;
  /** Calls `fn` once other work (I/O, other connections) has had its turn. */
  defer(fn: () => void): void;
  /** Calls `fn` after `ms` milliseconds; the result cancels it. */
  setTimer(fn: () => void, ms: number): () => void;
  /** Fills `bytes` with what nobody can guess: keys are made of it. */
  randomFill(bytes: Uint8Array): void;
  /** Connections, for a NIC on the mm thread. */
  readonly net?: StreamNet;
  /**
   * Starts a thread that calls `runNicThread(init, ...)`, with a `StreamNet` of its own. `onMessage`: it has posted; `onExit`: it has ended, by itself or because it was
   * terminated, and runs not one instruction more. Absent where there are no threads.
   */
  startNicThread?(
    init: NicThreadInit,
    onMessage: (message: unknown) => void,
    onExit: (reason: string) => void,
  ): NicThreadHandle;
}

export interface NicThreadHandle {
  postMessage(message: unknown): void;
  /** Kills the thread at whatever instant; resolves when it runs no more. */
  terminate(): Promise<unknown>;
}

/** What a NIC's thread begins with: structured-cloneable. */
export interface NicThreadInit {
  readonly memory: WasmMemory;
  /** Byte addresses of what it shares with the mm thread. */
  readonly stateAddr: number;
  readonly regionsAddr: number;
  readonly nrRegions: number;
  readonly countersAddr: number;
  readonly crcAddr: number;
  /** Pages of a window of read-ahead, at most. */
  readonly maxWindow: number;
}

/** Reliable streams of bytes, as TCP's. */
export interface StreamNet {
  /** Connects; `handler.connected` or `handler.closed` tells what became of it. */
  connect(addr: StreamAddr, handler: StreamHandler): Stream;
  /** Listens; rejects with KernelError (EADDRINUSE, EADDRNOTAVAIL, EACCES, ...) that says why; the connection manager says where. `onStream` is called with each connection, and returns what is told of it. */
  listen(addr: StreamAddr, backlog: number, onStream: (stream: Stream) => StreamHandler): Promise<StreamListener>;
}

export interface StreamAddr {
  readonly host: string;
  readonly port: number;
}

export interface StreamListener {
  readonly localAddr: StreamAddr;
  close(): void;
}

/** What a stream tells. */
export interface StreamHandler {
  /** Where the next read puts its bytes: asked before each, and never beside `data` and before `resume`. */
  readonly readBuffer: Uint8Array;
  connected(): void;
  /** Bytes [0, nrBytes) of the buffer that was asked last are new. They are read over when the call returns, unless it has called `pause`: then at `resume`. */
  data(nrBytes: number): void;
  /** The peer sends no more. */
  ended(): void;
  /** The last call; nothing was or will be sent any more. Of an error the connection manager takes `code` (an errno's name) and `message` (why, in plain words). */
  closed(error: Error | undefined): void;
}

export interface Stream {
  readonly localAddr: StreamAddr;
  readonly peerAddr: StreamAddr;
  /** Sends, in order. True: `bytes` may be written over at once; false: when `done` is called, which is then alone. */
  write(bytes: Uint8Array, done: () => void): boolean;
  /** No `data` until `resume`: TCP holds the peer back. */
  pause(): void;
  resume(): void;
  /** What was written goes out, then the end. */
  end(): void;
  /** At once. */
  destroy(): void;
}
