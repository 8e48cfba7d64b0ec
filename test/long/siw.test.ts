import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TERM_DDP_INVALID_STAG, TERM_RDMAP_INVALID_STAG } from '../../src/rdma/wire/index.js';
import { RpingVerbs } from '../rdma/rpingverbs.js';
import { connect, listen } from '../rdma/wire/connection.js';
import { write } from '../rdma/wire/flatnic.js';
import { advertise, pingText, rpingClient, rpingServer } from '../rdma/wire/rping.js';
import { present, SiwGuest } from './siwguest.js';

/**
 * Linux's own siw, in an emulated machine, as the peer of the wire alone and of `unpin/rdma`: rping of rdma-core in both directions. One
 * guest for all: it runs its rpings one after another, each for the test that it belongs to.
 */

const ROUNDS = 5;
/** As much as rping does: more than one segment of the longest. */
const SIZE = 65_535;
const CRCS = [false, true];
/** How what rping -c sends begins. */
const PINGS = ['A', 'B', 'C', 'D', 'E'].map((letter, round) => `rdma-ping-${round}: ${letter}`);

/** A guest whose kernel stands still says nothing any more. */
const TIMEOUT_MS = 180_000;

describe.skipIf(!present)('siw', { timeout: TIMEOUT_MS }, () => {
  let guest: SiwGuest;
  let port: number;
  let servers: Awaited<ReturnType<typeof listen>>[];
  const ends: RpingVerbs[] = [];
  let verbsServer: Awaited<ReturnType<RpingVerbs['listen']>>;

  beforeAll(async () => {
    servers = await Promise.all(CRCS.map((crc) => listen({ ird: 4, ord: 4, crc })));
    ends.push(await RpingVerbs.create(SIZE), await RpingVerbs.create(SIZE));
    verbsServer = await ends[0].listen();
    const ports = [...servers, verbsServer].map((server) => server.port);
    const clients = ports.map((port) => `rping -c -a 10.0.2.2 -p ${port} -C ${ROUNDS} -S ${SIZE} -V`);
    const server = `rping -s -C ${ROUNDS} -S ${SIZE}`;
    const commands = [...clients, server, server, server, server, server];
    guest = new SiwGuest(commands.map((command, i) => `${command}; echo rping ${i} exits with $?`).join('; '));
    port = await guest.port();
  });

  /** What rping number `i` of the guest has exited with. */
  const status = async (i: number) => {
    const [, code] = await guest.line(new RegExp(`rping ${i} exits with (\\d+)`));
    return Number(code);
  };

  afterAll(async () => {
    guest.stop();
    for (const end of ends) await end.stop();
  });

  test.each([0, 1])('rping -c of siw against our server, with CRC %i times', async (i) => {
    const connection = await guest.during(servers[i].accepted);
    connection.nic.receives.push(new Uint8Array(16));
    const pings = await rpingServer(connection, ROUNDS, SIZE);
    await connection.closed;
    expect(pings.map((ping) => ping.slice(0, 14))).toEqual(PINGS);
    expect(pings.map((ping) => ping.length)).toEqual(Array(ROUNDS).fill(SIZE - 1));
    expect(connection.peer).toMatchObject({ revision: 2, crc: false, privateData: new Uint8Array(0) });
    expect(connection.agreed.crc).toBe(CRCS[i]);
    expect(await status(i)).toBe(0);
  });

  test('rping -c of siw against our verbs, in demand-paged memory', async () => {
    const [end] = ends;
    await guest.during(verbsServer.accepted);
    const pings = await end.serve(ROUNDS);
    expect(pings.map((ping) => String.fromCharCode(...ping.subarray(0, 14)))).toEqual(PINGS);
    expect(await status(2)).toBe(0);
    expect(end.device.stats().majorFaults).toBeGreaterThan(0);
    expect(end.device.stats().pinnedPages).toBe(0);
  });

  test.each([0, 1])('our client against rping -s of siw, with CRC %i times', async (i) => {
    const connection = await connect(port, { ird: 4, ord: 4, crc: CRCS[i] });
    const pongs = await rpingClient(connection, ROUNDS, SIZE);
    connection.end();
    expect(pongs).toEqual(Array.from({ length: ROUNDS }, (_, round) => pingText(round, SIZE)));
    expect(connection.agreed).toMatchObject({ crc: CRCS[i], rtr: 'write' });
    expect(await status(3 + i)).toBe(0);
  });

  test('our verbs against rping -s of siw, in demand-paged memory', async () => {
    const end = ends[1];
    const data = Array.from({ length: ROUNDS }, (_, round) => new TextEncoder().encode(`${pingText(round, SIZE)}\0`));
    await end.connect(port);
    const pongs = await end.ping(data);
    await end.disconnect();
    expect(pongs.map((pong, i) => Buffer.compare(pong, data[i]))).toEqual(Array(ROUNDS).fill(0));
    expect(await status(5)).toBe(0);
    expect(end.device.stats().majorFaults).toBeGreaterThan(0);
    expect(end.device.stats().pinnedPages).toBe(0);
  });

  test('siw is told that a STag is wrong, and its READ fails', async () => {
    const connection = await connect(port, { ird: 4, ord: 4, crc: false });
    // A round first: Linux's iw_cm has a BUG for a connection that ends before its accept has come to its end.
    await rpingClient(connection, 1, SIZE);
    await expect(advertise(connection, 0xbad, SIZE)).rejects.toThrow('invalid STag');
    await connection.closed;
    expect(connection.nic.end).toMatchObject({ code: TERM_RDMAP_INVALID_STAG, byPeer: false });
    await status(6);
  });

  test('siw tells us that a STag is wrong', async () => {
    const connection = await connect(port, { ird: 4, ord: 4, crc: true });
    await rpingClient(connection, 1, SIZE);
    connection.nic.queue.push(write(0xbad, 0x1000, new Uint8Array(100)));
    connection.flush();
    await expect(connection.until(() => false)).rejects.toThrow();
    expect(connection.nic.end).toMatchObject({ code: TERM_DDP_INVALID_STAG, byPeer: true });
    await status(7);
  });
});
