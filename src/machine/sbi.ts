import * as S from './sbicodes.js';
import type { SbiHost } from './sbihost.js';

/**
 * The Supervisor Binary Interface, specification 2.0, of an S-mode guest: BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, and of
 * the legacy calls set_timer, putchar, getchar, clear_ipi, send_ipi and shutdown. Everything else is
 * SBI_ERR_NOT_SUPPORTED. Nothing a guest passes makes it throw.
 *
 * Use: on an ecall from S-mode, `await sbi.call(hartId, { eid, fid, args })`; then put `error` into a0 and, where it is
 * not undefined, `value` into a1 (legacy calls return in a0 alone). A plain result comes back without a promise.
 */

export interface SbiCall {
  /** a7, a6 and a0 to a5, as unsigned 64-bit values. */
  eid: bigint;
  fid: bigint;
  args: readonly bigint[];
}

export interface SbiResult {
  /** For a0: an error, or a legacy call's result. */
  error: bigint;
  /** For a1; undefined: a1 keeps its value. */
  value: bigint | undefined;
}

type Reply = SbiResult | Promise<SbiResult>;

const ALL_ONES = 0xffff_ffff_ffff_ffffn;
/** Bytes one DBCN call moves at most; the specification lets a call do less than asked. */
const DBCN_CHUNK = 4096;
/** A timer this far away never fires: 2^53 ticks are 28 years at 10 MHz. */
const NEVER = BigInt(Number.MAX_SAFE_INTEGER);
const HSM_SUSPEND_NON_RETENTIVE = 0x8000_0000;

const IMPLEMENTED: readonly number[] = [
  S.SBI_EXT_0_1_SET_TIMER,
  S.SBI_EXT_0_1_CONSOLE_PUTCHAR,
  S.SBI_EXT_0_1_CONSOLE_GETCHAR,
  S.SBI_EXT_0_1_CLEAR_IPI,
  S.SBI_EXT_0_1_SEND_IPI,
  S.SBI_EXT_0_1_SHUTDOWN,
  S.SBI_EXT_BASE,
  S.SBI_EXT_TIME,
  S.SBI_EXT_IPI,
  S.SBI_EXT_RFENCE,
  S.SBI_EXT_HSM,
  S.SBI_EXT_SRST,
  S.SBI_EXT_DBCN,
];

export class Sbi {
  private readonly host: SbiHost;
  private readonly nrHarts: number;

  /** Hart ids are 0 to nrHarts - 1. */
  constructor(host: SbiHost, nrHarts: number) {
    this.host = host;
    this.nrHarts = nrHarts;
  }

  call(hartId: number, { eid, fid, args }: SbiCall): Reply {
    if (eid <= 0xfn) return this.legacy(hartId, Number(eid), args);
    switch (Number(eid)) {
      case S.SBI_EXT_BASE:
        return this.base(fid, args);
      case S.SBI_EXT_TIME:
        return fid === 0n ? this.setTimer(hartId, args[0]) : notSupported();
      case S.SBI_EXT_IPI:
        return fid === 0n ? this.sendIpi(this.harts(args[0], args[1])) : notSupported();
      case S.SBI_EXT_RFENCE:
        return this.rfence(fid, args);
      case S.SBI_EXT_HSM:
        return this.hsm(hartId, fid, args);
      case S.SBI_EXT_SRST:
        return fid === 0n ? this.systemReset(low32(args[0]), low32(args[1])) : notSupported();
      case S.SBI_EXT_DBCN:
        return this.dbcn(fid, args);
      default:
        return notSupported();
    }
  }

  private base(fid: bigint, args: readonly bigint[]): SbiResult {
    if (fid === 0n) return ok(S.SBI_SPEC_VERSION);
    if (fid === 1n) return ok(S.SBI_IMPL_ID);
    if (fid === 2n) return ok(S.SBI_IMPL_VERSION);
    if (fid === 3n) return ok(IMPLEMENTED.some((eid) => BigInt(eid) === args[0]) ? 1n : 0n);
    // mvendorid, marchid, mimpid: 0 says "not implemented" in each
    return fid <= 6n ? ok(0n) : notSupported();
  }

  private setTimer(hartId: number, ticks: bigint): SbiResult {
    this.host.setTimer(hartId, ticks >= NEVER ? Number.POSITIVE_INFINITY : Number(ticks));
    return ok();
  }

  /** The harts of a mask whose bit 0 is hart `maskBase` (all ones: every hart); undefined where one does not exist. */
  private harts(mask: bigint, maskBase: bigint): number[] | undefined {
    if (maskBase === ALL_ONES) return Array.from({ length: this.nrHarts }, (_, hartId) => hartId);
    const hartIds: number[] = [];
    for (let bit = 0n; bit < 64n; bit++) {
      if (((mask >> bit) & 1n) === 0n) continue;
      if (maskBase + bit >= BigInt(this.nrHarts)) return undefined;
      hartIds.push(Number(maskBase + bit));
    }
    return hartIds;
  }

  private sendIpi(hartIds: number[] | undefined): SbiResult {
    if (hartIds === undefined) return failed(S.SBI_ERR_INVALID_PARAM);
    this.host.sendIpi(hartIds);
    return ok();
  }

  private rfence(fid: bigint, [mask, maskBase, start, size, asid]: readonly bigint[]): SbiResult {
    if (fid > 2n) return notSupported(); // the rest is for a guest that is a hypervisor
    const hartIds = this.harts(mask, maskBase);
    if (hartIds === undefined) return failed(S.SBI_ERR_INVALID_PARAM);
    if (fid === 0n) {
      this.host.remoteFenceI(hartIds);
      return ok();
    }
    const whole = (start === 0n && size === 0n) || size === ALL_ONES;
    if (!whole && start + size > ALL_ONES + 1n) return failed(S.SBI_ERR_INVALID_ADDRESS);
    this.host.remoteSfenceVma(hartIds, whole ? 0n : start, whole ? undefined : size, fid === 2n ? asid : undefined);
    return ok();
  }

  private hsm(hartId: number, fid: bigint, args: readonly bigint[]): SbiResult {
    if (fid === 1n) {
      this.host.hartStop(hartId);
      return ok();
    }
    if (fid === 3n) return this.hartSuspend(hartId, low32(args[0]));
    if (fid > 3n) return notSupported();
    const state = args[0] < BigInt(this.nrHarts) ? this.host.hartStatus(Number(args[0])) : undefined;
    if (state === undefined) return failed(S.SBI_ERR_INVALID_PARAM);
    if (fid === 2n) return ok(BigInt(state));
    if (state !== S.SBI_HSM_STATE_STOPPED) return failed(S.SBI_ERR_ALREADY_AVAILABLE);
    return failed(this.host.hartStart(Number(args[0]), args[1], args[2]));
  }

  private hartSuspend(hartId: number, type: number): SbiResult {
    if (type === HSM_SUSPEND_NON_RETENTIVE) return notSupported();
    if (type !== 0) return failed(S.SBI_ERR_INVALID_PARAM);
    this.host.hartSuspend(hartId);
    return ok();
  }

  private systemReset(type: number, reason: number): SbiResult {
    if (type > S.SBI_SRST_TYPE_WARM_REBOOT || reason > S.SBI_SRST_REASON_SYSTEM_FAILURE) {
      return failed(S.SBI_ERR_INVALID_PARAM);
    }
    this.host.systemReset(type, reason);
    return ok();
  }

  private dbcn(fid: bigint, [first, baseLo, baseHi]: readonly bigint[]): Reply {
    if (fid > 2n) return notSupported();
    if (fid === 2n) {
      this.host.consoleWrite(Uint8Array.of(low32(first) & 0xff));
      return ok();
    }
    if (baseHi !== 0n || baseLo + first > ALL_ONES + 1n) return failed(S.SBI_ERR_INVALID_PARAM);
    const lenBytes = first > BigInt(DBCN_CHUNK) ? DBCN_CHUNK : Number(first);
    if (lenBytes === 0) return ok(0n);
    return fid === 0n ? this.dbcnWrite(baseLo, lenBytes) : this.dbcnRead(baseLo, lenBytes);
  }

  private dbcnWrite(gpa: bigint, lenBytes: number): Reply {
    return then(this.host.readGuest(gpa, lenBytes), (bytes) => {
      if (bytes === undefined) return failed(S.SBI_ERR_INVALID_PARAM);
      this.host.consoleWrite(bytes);
      return ok(BigInt(bytes.length));
    });
  }

  /** Looks at the memory first, so that a bad address does not cost what was typed. */
  private dbcnRead(gpa: bigint, lenBytes: number): Reply {
    return then(this.host.readGuest(gpa, lenBytes), (memory) => {
      if (memory === undefined) return failed(S.SBI_ERR_INVALID_PARAM);
      const typed = this.typed(lenBytes);
      if (typed.length === 0) return ok(0n);
      return then(this.host.writeGuest(gpa, typed), (done) =>
        done ? ok(BigInt(typed.length)) : failed(S.SBI_ERR_FAILED),
      );
    });
  }

  private typed(maxBytes: number): Uint8Array {
    const bytes: number[] = [];
    while (bytes.length < maxBytes) {
      const byte = this.host.consoleRead();
      if (byte < 0) break;
      bytes.push(byte);
    }
    return Uint8Array.from(bytes);
  }

  private legacy(hartId: number, eid: number, args: readonly bigint[]): Reply {
    switch (eid) {
      case S.SBI_EXT_0_1_SET_TIMER:
        return inA0(this.setTimer(hartId, args[0]));
      case S.SBI_EXT_0_1_CONSOLE_PUTCHAR:
        this.host.consoleWrite(Uint8Array.of(low32(args[0]) & 0xff));
        return inA0(ok());
      case S.SBI_EXT_0_1_CONSOLE_GETCHAR:
        return { error: BigInt(this.host.consoleRead()), value: undefined };
      case S.SBI_EXT_0_1_CLEAR_IPI:
        this.host.clearIpi(hartId);
        return inA0(ok());
      case S.SBI_EXT_0_1_SEND_IPI:
        return this.legacySendIpi(hartId, args[0]);
      case S.SBI_EXT_0_1_SHUTDOWN:
        return inA0(this.systemReset(S.SBI_SRST_TYPE_SHUTDOWN, S.SBI_SRST_REASON_NONE));
      default:
        return inA0(notSupported());
    }
  }

  /** The mask is at a virtual address; address 0 means every hart. */
  private legacySendIpi(hartId: number, va: bigint): Reply {
    if (va === 0n) return inA0(this.sendIpi(this.harts(0n, ALL_ONES)));
    return then(this.host.readGuestVirtual(hartId, va), (mask) =>
      inA0(this.sendIpi(mask === undefined ? undefined : this.harts(mask, 0n))),
    );
  }
}

function ok(value = 0n): SbiResult {
  return { error: 0n, value };
}

/** `code` may be SBI_SUCCESS. */
function failed(code: number): SbiResult {
  return { error: BigInt(code), value: 0n };
}

function notSupported(): SbiResult {
  return failed(S.SBI_ERR_NOT_SUPPORTED);
}

function inA0({ error }: SbiResult): SbiResult {
  return { error, value: undefined };
}

function low32(value: bigint): number {
  return Number(value & 0xffff_ffffn);
}

/** `fn` of a value that may have to be waited for; without a promise where there is none. */
function then<T>(value: T | Promise<T>, fn: (value: T) => Reply): Reply {
  return value instanceof Promise ? value.then(fn) : fn(value);
}
