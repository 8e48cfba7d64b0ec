/** The launchers: on top of kvm a board, a kernel, a console; on top of lguest a bus and the same. */

export type { BalloonState } from './balloonstate.js';
export { Board, type BoardOptions } from './board.js';
export { BoardGuest, type BoardGuestOptions } from './boardguest.js';
export type { Guest, VcpuState } from './guest.js';
export { LguestBus, type LguestBusOptions } from './lguest/bus.js';
export { LguestGuest, type LguestGuestOptions } from './lguest/lguestguest.js';
export type { GuestExit, GuestReport } from './report.js';
export { GuestRnic, type RnicPeer, type RnicServer } from './rnic.js';
