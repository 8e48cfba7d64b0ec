import { expect, test } from 'vitest';
import { createMemory, Words } from '../../src/base/index.js';
import { IBV_SEND_SIGNALED, IBV_WR_LOCAL_INV } from '../../src/rdma/index.js';
import { WorkRing } from '../../src/rdma/nic/rings.js';
import { SendQueue, type SendQueueOwner } from '../../src/rdma/nic/sendqueue.js';
import { writeSendWr } from '../../src/rdma/postwr.js';

/** The NIC's end of a send queue, alone. */

const NR_SLOTS = 4;
const STRIDE_WORDS = 64;

test('whoever sees a completion may post the next request: its place is free by then, one after the other', () => {
  const memory = createMemory(65536);
  const ring = new WorkRing(new Words(memory, 0, 65536 / 4), 4096).init(NR_SLOTS, STRIDE_WORDS) as WorkRing;
  for (let wrId = 0; wrId < NR_SLOTS; wrId++) {
    const wr = { wrId, opcode: IBV_WR_LOCAL_INV, sendFlags: IBV_SEND_SIGNALED, invalidateRkey: 7 } as const;
    const u8 = new Uint8Array(memory.buffer);
    writeSendWr(ring, u8, ring.entryOf(wrId), wr, { maxSendSge: 1, maxInlineData: 0 });
    ring.setHead(wrId + 1);
  }
  const seen: [number, number][] = [];
  const owner = {
    ...{ memory: { invalidate: () => 0 }, pd: 1, sqSigAll: false, nrOutstanding: () => 0 },
    complete: ({ wrId }: { wrId: number }) => void seen.push([wrId, ring.used()]),
  } as unknown as SendQueueOwner;
  new SendQueue(ring.words, memory, 4096, 1, owner).nextMessage({} as never);
  expect(seen).toEqual([
    [0, 3],
    [1, 2],
    [2, 1],
    [3, 0],
  ]);
});
