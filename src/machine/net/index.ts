/** The user-mode network, and segments that join guests. */

export {
  ETH_FRAME_BYTES,
  ETH_HEADER_BYTES,
  type EthernetPort,
  EthernetSegment,
  type FrameSink,
  macAddress,
} from './ethernet.js';
export type { HostDatagrams, HostListener, HostStream, HostStreamEvents, NetBackend } from './netbackend.js';
export type { NetClock } from './netclock.js';
export { MAX_CONNECTING, MAX_CONNECTIONS } from './tcpnat.js';
export { MAX_FLOWS } from './udpnat.js';
export { type Outgoing, UserNetwork, type UserNetworkOptions } from './usernet.js';
