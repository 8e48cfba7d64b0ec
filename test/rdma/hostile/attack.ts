import { expect } from 'vitest';
import { IBV_WC_LOC_LEN_ERR, IBV_WC_SUCCESS, IBV_WC_WR_FLUSH_ERR } from '../../../src/rdma/index.js';
import { type Breach, bytesOf } from './breaches.js';
import { TAGGED_BYTES, UNTAGGED_BYTES } from './segments.js';
import { type Dice, Session } from './session.js';
import { NR_RECVS, type Victim } from './victim.js';

/** A valid conversation of `nrRequests`, one breach, and more that looks valid: what must come of it. */
export async function attack(victim: Victim, breach: Breach, next: Dice, nrRequests = next(6)): Promise<void> {
  const peer = await victim.connect();
  const session = new Session(victim, peer, next);
  const disturbance = victim.disturb(next);
  for (let n = 0; n < nrRequests; n++) await session.request();
  const made = breach.make(session);
  if (breach.uncut) peer.send(bytesOf(made));
  else session.sendBytes(bytesOf(made));
  if (breach.code === undefined) peer.end();
  else if (!breach.answered) writeOn(session);
  await peer.untilOver();
  peer.end();
  await disturbance.stop();
  const terminate = peer.terminate();
  expect(terminate?.code?.toString(16)).toBe(breach.code?.toString(16));
  if (Array.isArray(made) && terminate !== undefined) expectQuoted(terminate, made.at(-1)!, breach);
  expectFlushed(await victim.failed(), breach);
  await victim.renew();
  await victim.check();
}

/** What comes behind a breach must do nothing. */
function writeOn(session: Session): void {
  const before = session.victim.shadow.slice();
  for (const part of ['rw', 'wo'] as const) session.write(part);
  session.victim.shadow.set(before);
}

function expectQuoted(
  { header, request }: { header: Uint8Array; request: Uint8Array },
  segment: Uint8Array,
  breach: Breach,
): void {
  const headerBytes = (segment[0]! & 0x80) !== 0 ? TAGGED_BYTES : UNTAGGED_BYTES;
  const quoted = breach.name.startsWith('more READs') ? header.subarray(0, 10) : header;
  expect([...quoted]).toEqual([...segment.subarray(0, quoted.length === 10 ? 10 : headerBytes)]);
  if (breach.quotesRequest) expect([...request]).toEqual([...segment.subarray(UNTAGGED_BYTES)]);
  else expect(request).toHaveLength(0);
}

function expectFlushed(statuses: readonly number[], breach: Breach): void {
  const failed = statuses.filter((status) => status !== IBV_WC_SUCCESS);
  const lengthErrors = failed.filter((status) => status === IBV_WC_LOC_LEN_ERR).length;
  expect(statuses).toHaveLength(NR_RECVS);
  expect(lengthErrors).toBe(breach.lengthError ? 1 : 0);
  expect(failed.filter((status) => status !== IBV_WC_WR_FLUSH_ERR)).toHaveLength(lengthErrors);
}
