import { expect, it } from 'vitest';
import { Monitor } from '../../src/cli/monitor.js';
import { RAM_BASE, VirtioBalloon } from '../../src/machine/index.js';
import { Host } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { balloonState } from '../../src/vmm/balloonstate.js';
import type { Guest } from '../../src/vmm/index.js';
import { TestBoard, TestDriver, until } from '../machine/virtio/driver.js';

/** What `info balloon` tells of a driver that has statistics, which our own guests have not. */

const BUFFER = RAM_BASE + 0x8000;
const [STATS, NR_QUEUES] = [2, 4];

/** A balloon with its driver's queue of statistics, and a monitor that sees it as a guest's. */
function balloonGuest() {
  const board = new TestBoard(4 << 20);
  const device = new VirtioBalloon({ memory: { discard: () => {} } });
  const driver = new TestDriver(board, board.plug(device).number);
  driver.negotiate(device.features);
  const queues = Array.from({ length: NR_QUEUES }, (_, i) => driver.queue(i, RAM_BASE + i * 0x1000, 8));
  driver.start();
  const env = nodeEnvironment();
  const guest = { name: 'guest0', balloonState: () => balloonState(device, true, env) } as unknown as Guest;
  const host = new Host({ frames: 64, arenaBytes: 2 ** 20 });
  const monitor = new Monitor({ host, guests: [guest], quit: () => {}, console: () => {} });
  const queue = queues[STATS]!;
  const offer = (stats: readonly (readonly [number, bigint])[]) => {
    stats.forEach(([tag, value], i) => {
      board.memory.view.setUint16(BUFFER - RAM_BASE + 10 * i, tag, true);
      board.memory.view.setBigUint64(BUFFER - RAM_BASE + 10 * i + 2, value, true);
    });
    queue.offer(queue.chain([{ gpa: BUFFER, lenBytes: 10 * stats.length }]));
    queue.notify();
  };
  return { device, queue, offer, monitor };
}

it('info balloon tells the statistics as the driver has them now', async () => {
  const { device, queue, offer, monitor } = balloonGuest();
  device.targetPages = 512;
  offer([[4, 1n]]);
  const answer = monitor.execute('info balloon');
  await until(() => queue.take().length === 1);
  offer([
    [4, 3n << 20n],
    [5, 64n << 20n],
    [2, 17n],
  ]);
  expect(await answer).toBe(
    '  guest0: target 2 MiB, actual 0 B, inflated 0 B, reported 0 B\n' +
      '    freeMemory 3 MiB, totalMemory 64 MiB, majorFaults 17\n',
  );
});

it('info balloon does not wait for a driver that does not answer', async () => {
  const { offer, monitor } = balloonGuest();
  offer([[4, 1n]]);
  expect(await monitor.execute('info balloon')).toMatch(/^ {2}guest0: target 0 B.*\n {4}no statistics\n$/);
});
