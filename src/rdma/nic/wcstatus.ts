import {
  IBV_WC_FATAL_ERR,
  IBV_WC_LOC_ACCESS_ERR,
  IBV_WC_LOC_PROT_ERR,
  IBV_WC_REM_ACCESS_ERR,
  IBV_WC_REM_INV_REQ_ERR,
  IBV_WC_REM_OP_ERR,
  type WcStatus,
} from '../constants.js';
import {
  refuse,
  TERM_DDP_BASE_BOUNDS,
  TERM_DDP_INVALID_STAG,
  TERM_DDP_NOT_ASSOCIATED,
  TERM_RDMAP_ACCESS,
  TERM_RDMAP_BASE_BOUNDS,
  TERM_RDMAP_CANNOT_INVALIDATE,
  TERM_RDMAP_INVALID_STAG,
  TERM_RDMAP_LOCAL_CATASTROPHIC,
  TERM_RDMAP_MAY_NOT_INVALIDATE,
  TERM_RDMAP_NOT_ASSOCIATED,
} from '../wire/index.js';
import { FAILED_ACCESS, FAILED_BOUNDS, FAILED_FAULT, FAILED_KEY, FAILED_PD } from './access.js';

/** What a failed access to memory is on the wire, and what a failure is in a completion. */

/** Of a tagged message of the peer, placed by DDP (RFC 5041 section 8.2); access rights are RDMAP's to refuse (RFC 5040 section 4.8). */
export function refusePlacement(failed: number): number {
  if (failed === FAILED_KEY) return refuse(TERM_DDP_INVALID_STAG);
  if (failed === FAILED_BOUNDS) return refuse(TERM_DDP_BASE_BOUNDS);
  if (failed === FAILED_PD) return refuse(TERM_DDP_NOT_ASSOCIATED);
  if (failed === FAILED_ACCESS || failed === FAILED_FAULT) return refuse(TERM_RDMAP_ACCESS);
  return refuse(TERM_RDMAP_LOCAL_CATASTROPHIC);
}

/** Of what a peer asks to be read, or done, here (RFC 5040 section 4.8). */
export function refuseSource(failed: number): number {
  if (failed === FAILED_KEY) return refuse(TERM_RDMAP_INVALID_STAG);
  if (failed === FAILED_BOUNDS) return refuse(TERM_RDMAP_BASE_BOUNDS);
  if (failed === FAILED_PD) return refuse(TERM_RDMAP_NOT_ASSOCIATED);
  if (failed === FAILED_ACCESS || failed === FAILED_FAULT) return refuse(TERM_RDMAP_ACCESS);
  return refuse(TERM_RDMAP_LOCAL_CATASTROPHIC);
}

/** Of a SEND with invalidate (RFC 5040 section 4.8: the code is one, its error type tells whether the STag is known). */
export function refuseInvalidation(failed: number): number {
  return refuse(failed === FAILED_KEY ? TERM_RDMAP_CANNOT_INVALIDATE : TERM_RDMAP_MAY_NOT_INVALIDATE);
}

/** Of our own piece of memory: the key, its bounds or rights; or the mm has no such page. */
export function localStatus(failed: number): WcStatus {
  if (failed === FAILED_FAULT) return IBV_WC_LOC_ACCESS_ERR;
  return failed === FAILED_KEY || failed === FAILED_BOUNDS || failed === FAILED_PD || failed === FAILED_ACCESS
    ? IBV_WC_LOC_PROT_ERR
    : IBV_WC_FATAL_ERR;
}

/** Of the request that a peer's Terminate message names. */
export function remoteStatus(code: number): WcStatus {
  const layerAndType = code >>> 8;
  if (layerAndType === 0x01 || layerAndType === 0x11) return IBV_WC_REM_ACCESS_ERR;
  if (layerAndType === 0x02 || layerAndType === 0x12) return IBV_WC_REM_INV_REQ_ERR;
  return IBV_WC_REM_OP_ERR;
}
