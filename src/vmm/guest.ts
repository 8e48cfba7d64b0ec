import type { Mm } from '../mm/index.js';
import type { BalloonState } from './balloonstate.js';
import type { GuestExit, GuestReport } from './report.js';

/**
 * A guest as whoever runs it and watches it sees it, whichever driver it runs by: `BoardGuest` is one by kvm, `LguestGuest` one by lguest.
 *
 * Use: `run()` once, which resolves with the report when the guest is done; everything else at any time.
 */
export interface Guest {
  readonly name: string;
  readonly mm: Mm;
  readonly ramBytes: number;
  /** Runs to the guest's end. Never rejects for what the guest or its memory did: the report tells it. */
  run(): Promise<GuestReport>;
  /** Ends the guest from outside, at its next look at its requests. */
  kill(exit: 'killed' | 'timeout', reason: string): void;
  /** Stops its vCPUs: when it resolves they are out of the guest until `resume`. Nothing to a guest that has ended. */
  pause(): Promise<void>;
  resume(): void;
  readonly state: 'running' | 'paused' | GuestExit;
  /** Where its vCPUs stand; none once it has ended. */
  vcpuStates(): readonly VcpuState[];
  /** External faults so far. */
  readonly faults: Readonly<GuestReport['faults']>;
  /** What its balloon holds, and what it says of its memory; undefined without a balloon. Within a second, though it hangs. */
  balloonState(): Promise<BalloonState | undefined>;
  /** Asks its driver to have so many bytes of its RAM in the balloon, more or fewer than there are; whether it has a balloon. */
  askBalloon(targetBytes: number): boolean;
  /** Bytes typed on its console. */
  input(bytes: Uint8Array): void;
  /** The terminal's size, in characters. */
  resize(columns: number, rows: number): void;
}

export interface VcpuState {
  readonly id: number;
  readonly mode: string;
  readonly pc: bigint;
  /** What translates addresses: the root's register or address, or 'off'. */
  readonly root: string;
  readonly instructions: number;
}

const MODES: Record<number, string> = { 0: 'user', 1: 'supervisor' };

/** Of a hart's mode. */
export function modeName(mode: number): string {
  return MODES[mode] ?? String(mode);
}
