/** A software RNIC whose registered memory is demand paged: verbs and connections (docs/design.md). */

export { checkRdma } from './check.js';
export type { CmAddr, CmEvent, CmId, ConnParam } from './cm.js';
export * from './constants.js';
export { type DeviceOptions, openDevice } from './device.js';
export type {
  NicThreadHandle,
  NicThreadInit,
  RdmaEnvironment,
  Stream,
  StreamAddr,
  StreamHandler,
  StreamListener,
  StreamNet,
} from './environment.js';
export { type NicPort, runNicThread } from './nic/nic.js';
export type {
  AsyncEvent,
  CompChannel,
  CompletionQueue,
  Context,
  Device,
  DeviceAttrEx,
  DeviceStats,
  MemoryRegion,
  ProtectionDomain,
  QpCap,
  QpInitAttr,
  QueuePair,
  RecvWr,
  SendWr,
  Sge,
  SharedReceiveQueue,
  SrqInitAttr,
  WorkCompletion,
} from './verbs.js';
