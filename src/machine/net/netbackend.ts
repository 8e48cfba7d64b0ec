/**
 * What a user-mode network needs of its host: sockets. Injected, since the board knows no operating system; `unpin/node` has one for
 * Node, and tests have their own.
 *
 * Calls come back by events, never inside the call that causes them. A stream counts what it has taken and not yet handed on
 * (`pendingBytes`), so that the guest's window follows the host's socket; `pause` holds back what comes the other way.
 */

/** A connected, or connecting, TCP socket of the host. */
export interface HostStream {
  /** Bytes written that the host's kernel has not taken yet. */
  readonly pendingBytes: number;
  /** Takes the array to keep. Ignored after `end` and after the stream has closed. */
  write(bytes: Uint8Array): void;
  /** No more is written: half close, after what is pending. */
  end(): void;
  /** Closes both ways at once, with a reset. No event follows. */
  reset(): void;
  pause(): void;
  resume(): void;
}

export interface HostStreamEvents {
  /** For streams that `tcpConnect` opened: the other side has accepted. */
  connected(): void;
  /** The array is the receiver's to keep. */
  data(bytes: Uint8Array): void;
  /** `pendingBytes` has fallen. */
  drained(): void;
  /** The other side will send no more. */
  ended(): void;
  /** Nothing follows. `failed`: refused, reset, or timed out, as against closed in order. */
  closed(failed: boolean): void;
}

export interface HostDatagrams {
  /** Sends a copy, or loses it, as UDP may. */
  send(bytes: Uint8Array): void;
  close(): void;
}

export interface HostListener {
  close(): void;
}

/** Addresses are IPv4 in dotted form. */
export interface NetBackend {
  tcpConnect(address: string, port: number, events: HostStreamEvents): HostStream;
  /**
   * Listens on a port of the host's loopback. Each connection is handed over paused; `accept` says who gets its events, or undefined
   * for one that is not wanted. Rejects with KernelError EADDRINUSE or EACCES. May wait.
   */
  tcpListen(port: number, accept: (stream: HostStream) => HostStreamEvents | undefined): Promise<HostListener>;
  /** A socket for datagrams to one address, and from it. `refused`: nobody is there. */
  udpOpen(address: string, port: number, events: { data(bytes: Uint8Array): void; refused(): void }): HostDatagrams;
  /** Where the host asks for names; undefined where it has none. */
  nameServer(): string | undefined;
}
