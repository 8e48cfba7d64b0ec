/** Constants of libibverbs (infiniband/verbs.h) and librdmacm (rdma/rdma_cma.h), with their names and values. */

// Access rights of a region (enum ibv_access_flags).

export const IBV_ACCESS_LOCAL_WRITE = 1;
/** Needs IBV_ACCESS_LOCAL_WRITE too. */
export const IBV_ACCESS_REMOTE_WRITE = 2;
export const IBV_ACCESS_REMOTE_READ = 4;
/** Needs IBV_ACCESS_LOCAL_WRITE too. */
export const IBV_ACCESS_REMOTE_ATOMIC = 8;
/** Demand paged: nothing is pinned. Without it the region's pages are pinned and count against RLIMIT_MEMLOCK. */
export const IBV_ACCESS_ON_DEMAND = 64;
/** Flags that a device may pass over, as IBV_ACCESS_RELAXED_ORDERING: this one does (IB_UVERBS_ACCESS_OPTIONAL_RANGE). */
export const IBV_ACCESS_OPTIONAL_RANGE = 0x3ff0_0000;

/** `reregMr` (enum ibv_rereg_mr_flags). */
export const IBV_REREG_MR_CHANGE_TRANSLATION = 1;
export const IBV_REREG_MR_CHANGE_PD = 2;
export const IBV_REREG_MR_CHANGE_ACCESS = 4;

/** `adviseMr` (enum ib_uverbs_advise_mr_advice): pages for reading, for writing, and only those that need no fault. */
export const IBV_ADVISE_MR_ADVICE_PREFETCH = 0;
export const IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE = 1;
export const IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT = 2;
export type AdviseMrAdvice = 0 | 1 | 2;
/** The promise is kept only when all is done; without it the work goes on behind. */
export const IBV_ADVISE_MR_FLAG_FLUSH = 1;

// Work requests (enum ibv_wr_opcode).

export const IBV_WR_RDMA_WRITE = 0;
export const IBV_WR_RDMA_WRITE_WITH_IMM = 1;
export const IBV_WR_SEND = 2;
export const IBV_WR_SEND_WITH_IMM = 3;
export const IBV_WR_RDMA_READ = 4;
export const IBV_WR_ATOMIC_CMP_AND_SWP = 5;
export const IBV_WR_ATOMIC_FETCH_AND_ADD = 6;
export const IBV_WR_LOCAL_INV = 7;
export const IBV_WR_SEND_WITH_INV = 9;
export type WrOpcode = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 9;

/** Begins when all reads and atomics before it are complete. */
export const IBV_SEND_FENCE = 1;
export const IBV_SEND_SIGNALED = 2;
/** Wakes a peer that has armed its queue for solicited completions alone. */
export const IBV_SEND_SOLICITED = 4;
/** The data is copied when it is posted. */
export const IBV_SEND_INLINE = 8;

// Completions (enum ibv_wc_status, ibv_wc_opcode, ibv_wc_flags).

export const IBV_WC_SUCCESS = 0;
/** A message was longer than the buffer it met. */
export const IBV_WC_LOC_LEN_ERR = 1;
/** A work request made no sense, as an atomic of 7 bytes. */
export const IBV_WC_LOC_QP_OP_ERR = 2;
/** An lkey, its bounds or its rights did not fit. */
export const IBV_WC_LOC_PROT_ERR = 4;
/** The queue pair was, or got, into the error state first. */
export const IBV_WC_WR_FLUSH_ERR = 5;
export const IBV_WC_BAD_RESP_ERR = 7;
/** What was received could not be placed: the mm has no such page, or it is not for writing. */
export const IBV_WC_LOC_ACCESS_ERR = 8;
/** The peer did not understand, or could not serve, the request. */
export const IBV_WC_REM_INV_REQ_ERR = 9;
/** The peer refused an rkey, its bounds or its rights. */
export const IBV_WC_REM_ACCESS_ERR = 10;
export const IBV_WC_REM_OP_ERR = 11;
/** The peer is gone. */
export const IBV_WC_RETRY_EXC_ERR = 12;
/** The NIC, or what the page was to come from, has failed. */
export const IBV_WC_FATAL_ERR = 19;
export const IBV_WC_GENERAL_ERR = 21;
export type WcStatus = 0 | 1 | 2 | 4 | 5 | 7 | 8 | 9 | 10 | 11 | 12 | 19 | 21;

export const IBV_WC_SEND = 0;
export const IBV_WC_RDMA_WRITE = 1;
export const IBV_WC_RDMA_READ = 2;
export const IBV_WC_COMP_SWAP = 3;
export const IBV_WC_FETCH_ADD = 4;
export const IBV_WC_LOCAL_INV = 6;
export const IBV_WC_RECV = 128;
export const IBV_WC_RECV_RDMA_WITH_IMM = 129;
export type WcOpcode = 0 | 1 | 2 | 3 | 4 | 6 | 128 | 129;

export const IBV_WC_WITH_IMM = 2;
export const IBV_WC_WITH_INV = 8;

// Queue pairs (enum ibv_qp_type, ibv_qp_state).

export const IBV_QPT_RC = 2;
export const IBV_QPS_RESET = 0;
/** Receives may be posted; the connection manager does the rest. */
export const IBV_QPS_INIT = 1;
export const IBV_QPS_RTR = 2;
export const IBV_QPS_RTS = 3;
/** All that is posted is flushed. */
export const IBV_QPS_ERR = 6;
export type QpState = 0 | 1 | 2 | 3 | 6;

// What a device can do (struct ibv_device_attr_ex, ibv_odp_caps).

export const IBV_ATOMIC_NONE = 0;
export const IBV_ATOMIC_HCA = 1;
/** Atomic to all who use atomic operations on the memory, vCPUs included. */
export const IBV_ATOMIC_GLOB = 2;
export const IBV_TRANSPORT_IWARP = 1;
export const IBV_ODP_SUPPORT = 1;
export const IBV_ODP_SUPPORT_IMPLICIT = 2;
export const IBV_ODP_SUPPORT_SEND = 1;
export const IBV_ODP_SUPPORT_RECV = 2;
export const IBV_ODP_SUPPORT_WRITE = 4;
export const IBV_ODP_SUPPORT_READ = 8;
export const IBV_ODP_SUPPORT_ATOMIC = 16;
export const IBV_ODP_SUPPORT_SRQ_RECV = 32;

// Asynchronous events (enum ibv_event_type).

export const IBV_EVENT_CQ_ERR = 0;
export const IBV_EVENT_QP_FATAL = 1;
export const IBV_EVENT_QP_REQ_ERR = 2;
export const IBV_EVENT_QP_ACCESS_ERR = 3;
export const IBV_EVENT_DEVICE_FATAL = 8;
export const IBV_EVENT_SRQ_LIMIT_REACHED = 15;
export const IBV_EVENT_QP_LAST_WQE_REACHED = 16;
export type AsyncEventType = 0 | 1 | 2 | 3 | 8 | 15 | 16;

// Events of the connection manager (enum rdma_cm_event_type).

export const RDMA_CM_EVENT_CONNECT_REQUEST = 4;
export const RDMA_CM_EVENT_ESTABLISHED = 9;
export const RDMA_CM_EVENT_DISCONNECTED = 10;
export const RDMA_CM_EVENT_DEVICE_REMOVAL = 11;
export type CmEventType = 4 | 9 | 10 | 11;

const STATUS_NAMES: Readonly<Record<number, string>> = {
  [IBV_WC_SUCCESS]: 'success',
  [IBV_WC_LOC_LEN_ERR]: 'local length error',
  [IBV_WC_LOC_QP_OP_ERR]: 'local QP operation error',
  [IBV_WC_LOC_PROT_ERR]: 'local protection error',
  [IBV_WC_WR_FLUSH_ERR]: 'Work Request Flushed Error',
  [IBV_WC_BAD_RESP_ERR]: 'bad response error',
  [IBV_WC_LOC_ACCESS_ERR]: 'local access error',
  [IBV_WC_REM_INV_REQ_ERR]: 'remote invalid request error',
  [IBV_WC_REM_ACCESS_ERR]: 'remote access error',
  [IBV_WC_REM_OP_ERR]: 'remote operation error',
  [IBV_WC_RETRY_EXC_ERR]: 'transport retry counter exceeded',
  [IBV_WC_FATAL_ERR]: 'fatal error',
  [IBV_WC_GENERAL_ERR]: 'general error',
};

/** In words, as ibv_wc_status_str. */
export function wcStatusStr(status: number): string {
  return STATUS_NAMES[status] ?? `unknown status ${status}`;
}
