import { spawnSync } from 'node:child_process';

/**
 * Advisory locks of whole files between processes: flock(2), which Node has not.
 *
 * The lock belongs to the open file. So the program flock(1) of util-linux (BusyBox has it too) can take it for an open file that it inherits, and it stays
 * when that program has ended: until this process closes the file, or dies of whatever. Nothing is left behind that would have to be taken over from a dead
 * owner, as a lock file beside it would be, and nobody who may not open the file can hold it. Two openings of one file in one process exclude each other too.
 *
 * It takes a few milliseconds. Who does not ask for a lock is not kept out.
 */

/** 'exclusive': nobody else has it. 'shared': nobody else has it exclusively. */
export type FileLock = 'exclusive' | 'shared';

/** 'held': by somebody else, who is in the way. 'unknown': there is no flock(1) here, or the file system has no locks. */
export type LockOutcome = 'taken' | 'held' | 'unknown';

/** Where the program finds the file that it inherits. */
const FD = 3;
/** The answer of flock --nonblock to a lock that is held. */
const EXIT_HELD = 1;

/** Takes the lock for as long as `fd` is open; does not wait for others. */
export function tryLock(fd: number, lock: FileLock): LockOutcome {
  const how = lock === 'exclusive' ? '-x' : '-s';
  const { status } = spawnSync('flock', [how, '-n', String(FD)], { stdio: ['ignore', 'ignore', 'ignore', fd] });
  if (status === 0) return 'taken';
  return status === EXIT_HELD ? 'held' : 'unknown';
}
