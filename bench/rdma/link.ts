import { type ChildProcess, fork } from 'node:child_process';
import type { PeerCall } from './peer.js';

/** The peer, as the measuring process has it. */
export class PeerLink {
  private readonly child: ChildProcess;
  private readonly pending = new Map<number, (result: unknown) => void>();
  private nextId = 1;

  private constructor(child: ChildProcess) {
    this.child = child;
    child.on('message', (message: [number, unknown] | 'ready') => {
      if (message === 'ready') return;
      this.pending.get(message[0])?.(message[1]);
      this.pending.delete(message[0]);
    });
    child.on('exit', (code) => {
      if (this.pending.size > 0) throw new Error(`bench: the peer has died (${code})`);
    });
  }

  /** `script` calls `runPeer` when it has a parent. */
  static async start(script: string, regionBytes: number): Promise<PeerLink> {
    const child = fork(script, [String(regionBytes)]);
    await new Promise((resolve) => child.once('message', resolve));
    return new PeerLink(child);
  }

  ask<T = void>(name: PeerCall, argument = ''): Promise<T> {
    const id = this.nextId++;
    return new Promise((resolve) => {
      this.pending.set(id, resolve as (result: unknown) => void);
      this.child.send([id, name, argument]);
    });
  }

  get pid(): number {
    return this.child.pid!;
  }

  stop(): void {
    this.child.disconnect();
  }
}
