import { afterEach, expect, test } from 'vitest';
import { pattern } from './rdmaworld.js';
import { RpingVerbs } from './rpingverbs.js';

/** What test/long/siw.test.ts runs against Linux's siw, here against itself. */

const ends: RpingVerbs[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end.stop();
});

test('rping, with its buffers in swap', async () => {
  const size = 20_000;
  const data = [1, 2].map((seed) => pattern(size, seed));
  ends.push(await RpingVerbs.create(size), await RpingVerbs.create(size));
  const [server, client] = ends;
  const { port, accepted } = await server.listen();
  await client.connect(port);
  await accepted;
  const serving = server.serve(data.length);
  expect((await client.ping(data)).map((pong, i) => Buffer.compare(pong, data[i]))).toEqual([0, 0]);
  expect((await serving).map((ping, i) => Buffer.compare(ping, data[i]))).toEqual([0, 0]);
  await client.disconnect();
  for (const end of ends) {
    expect(end.device.stats().majorFaults).toBeGreaterThan(0);
    expect(end.device.stats().pinnedPages).toBe(0);
  }
});
