import { KernelError } from '../base/index.js';
import {
  IBV_SEND_FENCE,
  IBV_SEND_INLINE,
  IBV_SEND_SIGNALED,
  IBV_SEND_SOLICITED,
  IBV_WR_ATOMIC_CMP_AND_SWP,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_LOCAL_INV,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_RDMA_WRITE_WITH_IMM,
  IBV_WR_SEND,
  IBV_WR_SEND_WITH_IMM,
  IBV_WR_SEND_WITH_INV,
} from './constants.js';
import type { WorkRing } from './nic/rings.js';
import type { RecvWr, SendWr, Sge } from './verbs.js';

/** Work requests, looked at and written into a ring. What is wrong with one that can be seen here throws; keys and bounds are seen when it is done, by its completion. */

const SEND_FLAGS = IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE;
const OPCODES = new Set<number>([
  IBV_WR_RDMA_WRITE,
  IBV_WR_RDMA_WRITE_WITH_IMM,
  IBV_WR_SEND,
  IBV_WR_SEND_WITH_IMM,
  IBV_WR_RDMA_READ,
  IBV_WR_ATOMIC_CMP_AND_SWP,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_LOCAL_INV,
  IBV_WR_SEND_WITH_INV,
]);
const REMOTE = new Set<number>([
  IBV_WR_RDMA_WRITE,
  IBV_WR_RDMA_WRITE_WITH_IMM,
  IBV_WR_RDMA_READ,
  IBV_WR_ATOMIC_CMP_AND_SWP,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
]);
const MAX_MESSAGE = 2 ** 31;

export interface SendLimits {
  readonly maxSendSge: number;
  readonly maxInlineData: number;
}

function refuse(syscall: string, what: string): never {
  throw new KernelError('EINVAL', syscall, what);
}

/** Writes `wr` into the ring's entry at word `i`. Throws KernelError EINVAL. */
export function writeSendWr(ring: WorkRing, u8: Uint8Array, i: number, wr: SendWr, limits: SendLimits): void {
  const { opcode, sendFlags = 0, sgList = [], inlineData } = wr;
  checkSend(wr, sendFlags, limits);
  const isInline = (sendFlags & IBV_SEND_INLINE) !== 0;
  if (isInline) u8.set(inlineData!, ring.inlineAddr(i));
  const lenBytes = isInline ? inlineData!.length : writeSges('postSend', ring, i, sgList);
  if (isAtomic(opcode) && (lenBytes !== 8 || sgList.length !== 1 || sgList[0]!.addr % 8 !== 0))
    refuse('postSend', 'an atomic needs one piece of 8 bytes, at a multiple of 8');
  ring.writeHeader(i, wr.wrId, opcode, sendFlags, isInline ? 0 : sgList.length, lenBytes);
  const imm = opcode === IBV_WR_SEND_WITH_INV || opcode === IBV_WR_LOCAL_INV ? wr.invalidateRkey! : (wr.immData ?? 0);
  ring.writeRemote(i, wr.remoteAddr ?? 0, wr.rkey ?? 0, imm, wr.compareAdd ?? 0n, wr.swap ?? 0n);
}

const isAtomic = (opcode: number): boolean =>
  opcode === IBV_WR_ATOMIC_CMP_AND_SWP || opcode === IBV_WR_ATOMIC_FETCH_AND_ADD;

function checkSend(wr: SendWr, sendFlags: number, limits: SendLimits): void {
  const { opcode, sgList = [], inlineData } = wr;
  checkWrId('postSend', wr.wrId);
  if (!OPCODES.has(opcode)) refuse('postSend', `opcode ${opcode} must be an IBV_WR_ opcode that this device has`);
  if ((sendFlags & ~SEND_FLAGS) !== 0)
    refuse('postSend', `sendFlags 0x${sendFlags.toString(16)} must be IBV_SEND_ flags`);
  if (sgList.length > limits.maxSendSge)
    refuse('postSend', `${sgList.length} pieces must be at most maxSendSge, ${limits.maxSendSge}`);
  if ((sendFlags & IBV_SEND_INLINE) !== 0) checkInline(opcode, inlineData, sgList, limits);
  else if (inlineData !== undefined) refuse('postSend', 'inlineData needs IBV_SEND_INLINE');
  if (REMOTE.has(opcode)) checkRemote(wr);
  if ((opcode === IBV_WR_SEND_WITH_INV || opcode === IBV_WR_LOCAL_INV) && !isUint32(wr.invalidateRkey))
    refuse('postSend', 'invalidateRkey must be a key');
  if (wr.immData !== undefined && !isUint32(wr.immData)) refuse('postSend', `immData ${wr.immData} must have 32 bits`);
}

function checkInline(opcode: number, data: Uint8Array | undefined, sgList: readonly Sge[], limits: SendLimits): void {
  if (data === undefined || sgList.length > 0) refuse('postSend', 'IBV_SEND_INLINE needs inlineData instead of sgList');
  if (data.length > limits.maxInlineData)
    refuse('postSend', `${data.length} bytes inline must be at most maxInlineData, ${limits.maxInlineData}`);
  if (opcode === IBV_WR_RDMA_READ || isAtomic(opcode)) refuse('postSend', 'reads and atomics cannot be inline');
}

function checkRemote({ opcode, remoteAddr, rkey }: SendWr): void {
  if (remoteAddr === undefined || !Number.isSafeInteger(remoteAddr) || remoteAddr < 0)
    refuse('postSend', `remoteAddr ${remoteAddr} must be an address below 2^53`);
  if (!isUint32(rkey)) refuse('postSend', `rkey ${rkey} must be a key`);
  if (isAtomic(opcode) && remoteAddr % 8 !== 0)
    refuse('postSend', `remoteAddr 0x${remoteAddr.toString(16)} of an atomic must be a multiple of 8`);
}

const isUint32 = (value: number | undefined): boolean => value !== undefined && value >>> 0 === value;

function checkWrId(syscall: string, wrId: number): void {
  if (!Number.isSafeInteger(wrId) || wrId < 0) refuse(syscall, `wrId ${wrId} must be an integer from 0 to 2^53 - 1`);
}

/** Writes the pieces; their bytes in all. */
function writeSges(syscall: string, ring: WorkRing, i: number, sgList: readonly Sge[]): number {
  let lenBytes = 0;
  for (const [k, { addr, length, lkey }] of sgList.entries()) {
    if (!Number.isSafeInteger(addr) || addr < 0) refuse(syscall, `addr ${addr} must be an address below 2^53`);
    if (!Number.isInteger(length) || length < 0 || length > MAX_MESSAGE)
      refuse(syscall, `length ${length} must be from 0 to ${MAX_MESSAGE}`);
    if (!isUint32(lkey)) refuse(syscall, `lkey ${lkey} must be a key`);
    ring.writeSge(i, k, addr, length, lkey);
    lenBytes += length;
  }
  if (lenBytes > MAX_MESSAGE) refuse(syscall, `${lenBytes} bytes in all must be at most ${MAX_MESSAGE}`);
  return lenBytes;
}

/** Posts receives, until one is refused. Throws KernelError EINVAL, ENOMEM. */
export function postReceives(
  syscall: string,
  ring: WorkRing,
  maxSge: number,
  maxWr: number,
  wrs: readonly RecvWr[],
): void {
  for (const wr of wrs) {
    checkWrId(syscall, wr.wrId);
    if (wr.sgList.length > maxSge) refuse(syscall, `${wr.sgList.length} pieces must be at most ${maxSge}`);
    if (ring.used() >= maxWr) throw new KernelError('ENOMEM', syscall, `${maxWr} requests are outstanding already`);
    const head = ring.head();
    const i = ring.entryOf(head);
    ring.writeHeader(i, wr.wrId, 0, 0, wr.sgList.length, writeSges(syscall, ring, i, wr.sgList));
    ring.setHead(head + 1);
  }
}
