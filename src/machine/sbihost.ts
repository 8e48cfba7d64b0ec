/**
 * What `Sbi` asks of whoever runs the harts. All of it is cold. Only memory may wait: an absent page is brought in first,
 * and since a hart that makes an SBI call is outside guest mode, nobody waits for it meanwhile.
 */
export interface SbiHost {
  /** Absolute time in timebase ticks; Infinity: no timer. Clears a pending timer interrupt. */
  setTimer(hartId: number, ticks: number): void;
  /** Raises the software interrupt of each of these harts. */
  sendIpi(hartIds: readonly number[]): void;
  clearIpi(hartId: number): void;
  remoteFenceI(hartIds: readonly number[]): void;
  /** `lenBytes` undefined: the whole address space; `asid` undefined: every address space. */
  remoteSfenceVma(hartIds: readonly number[], start: bigint, lenBytes: bigint | undefined, asid?: bigint): void;
  /** An SBI_HSM_STATE, or undefined where there is no such hart. */
  hartStatus(hartId: number): number | undefined;
  /** Starts a stopped hart at a guest-physical address with a0 = hart id, a1 = opaque; an SBI error or 0. */
  hartStart(hartId: number, address: bigint, opaque: bigint): number;
  /** The hart does not go on after this call. */
  hartStop(hartId: number): void;
  /** Retentive suspend: as WFI, until an interrupt is pending. */
  hartSuspend(hartId: number): void;
  systemReset(type: number, reason: number): void;
  consoleWrite(bytes: Uint8Array): void;
  /** The next byte typed, or -1. */
  consoleRead(): number;
  /** Bytes at a guest-physical address; undefined where not all of it is RAM. May wait. */
  readGuest(gpa: bigint, lenBytes: number): Uint8Array | undefined | Promise<Uint8Array | undefined>;
  /** False where not all of it is RAM; nothing is written then. May wait. */
  writeGuest(gpa: bigint, bytes: Uint8Array): boolean | Promise<boolean>;
  /** A doubleword at a virtual address of the hart (legacy hart masks); undefined where it is not mapped. May wait. */
  readGuestVirtual(hartId: number, va: bigint): bigint | undefined | Promise<bigint | undefined>;
}
