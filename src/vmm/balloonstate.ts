import type { Environment } from '../kvm/index.js';
import type { BalloonStats, VirtioBalloon } from '../machine/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import type { GuestReport } from './report.js';

/**
 * What a guest's balloon holds, and what its driver says of the guest's memory (QEMU: `info balloon`, guest-stats).
 *
 * Use: `balloonReport` at any time; `await balloonState`, which is answered soon though the guest may not answer at all.
 */

/** A driver answers within a few milliseconds of its guest's time; one that hangs is not waited for longer than this. */
const ANSWER_MS = 1000;

export interface BalloonState extends NonNullable<GuestReport['balloon']> {
  /** What is asked of the guest. */
  readonly targetBytes: number;
  /** Undefined where the driver has none, or the guest does not answer. */
  readonly stats: BalloonStats | undefined;
}

export function balloonReport({ actualPages, counts }: VirtioBalloon): NonNullable<GuestReport['balloon']> {
  return { actualBytes: actualPages * PAGE_SIZE, ...counts };
}

/** @param running only then the guest is asked. */
export async function balloonState(balloon: VirtioBalloon, running: boolean, env: Environment): Promise<BalloonState> {
  const stats = running ? await within(balloon.stats(), env) : undefined;
  return { targetBytes: balloon.targetPages * PAGE_SIZE, ...balloonReport(balloon), stats };
}

function within<T>(answer: Promise<T | undefined>, env: Environment): Promise<T | undefined> {
  return new Promise((resolve) => {
    const cancel = env.setTimer(() => resolve(undefined), ANSWER_MS);
    void answer.then((value) => {
      cancel();
      resolve(value);
    });
  });
}
