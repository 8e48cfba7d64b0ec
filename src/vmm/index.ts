/** The launcher on top of kvm: a board, a kernel, a console. */

export { Board, type BoardOptions } from './board.js';
export { BoardGuest, type BoardGuestOptions } from './boardguest.js';
export type { Guest } from './guest.js';
export type { GuestExit, GuestReport } from './report.js';
