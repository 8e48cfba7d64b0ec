import { RDMAP_WRITE } from './codes.js';
import type { TxMessage } from './owner.js';
import { joined, TWO_32 } from './uint64.js';

/** The one message of ours that is being sent: what the owner has filled in, and how far it has been sent. */
export class OutgoingMessage implements TxMessage {
  id = 0;
  opcode = RDMAP_WRITE;
  lenBytes = 0;
  remoteStag = 0;
  remoteHigh = 0;
  remoteLow = 0;
  localStag = 0;
  localTo = 0;
  invalidateStag = 0;
  immediateHigh = 0;
  immediateLow = 0;
  atomicOpcode = 0;
  addOrSwap = 0n;
  addOrSwapMask = 0n;
  compare = 0n;
  compareMask = 0n;
  /** Payload that has been sent. */
  offset = 0;

  setRemoteTo(to: number | bigint): void {
    if (typeof to === 'number') {
      this.remoteHigh = Math.floor(to / TWO_32);
      this.remoteLow = to - joined(this.remoteHigh, 0);
    } else {
      this.remoteHigh = Number((to >> 32n) & 0xffff_ffffn);
      this.remoteLow = Number(to & 0xffff_ffffn);
    }
  }
}
