import { get32, get64, put32, put64 } from '../../../src/base/index.js';
import { RDMAP_SEND } from '../../../src/rdma/wire/index.js';
import type { Connection } from './connection.js';
import { read, write } from './flatnic.js';

/**
 * rping's side of its protocol (rdma-core's librdmacm/examples/rping.c), for a connection. In each round the client advertises a
 * buffer (SEND of address, STag and size), the server READs it and says go on (SEND), the client advertises another, the server
 * WRITEs there what it has read and says go on.
 */

const INFO_BYTES = 16;
const STAG = 0x1234_5600;
const BASE = 0x7f00_0000_1000;

/** The server's rounds, until the client closes. */
export async function rpingServer(connection: Connection, rounds: number, size: number): Promise<string[]> {
  const { nic } = connection;
  const buffer = nic.region(STAG, BASE, new Uint8Array(size));
  const pings: string[] = [];
  for (let round = 0; round < rounds; round++) {
    const source = await nextInfo(connection);
    nic.queue.push(read([source.stag, source.to], [STAG, BASE], source.lenBytes, round));
    connection.flush();
    await connection.until(() => nic.log.includes(`read ${round}`));
    pings.push(text(buffer.subarray(0, source.lenBytes)));
    goOn(connection);
    const sink = await nextInfo(connection);
    nic.queue.push(write(sink.stag, sink.to, buffer.subarray(0, sink.lenBytes)));
    goOn(connection);
  }
  return pings;
}

/** The client's rounds: what the server wrote back in each. */
export async function rpingClient(connection: Connection, rounds: number, size: number): Promise<string[]> {
  const { nic } = connection;
  const start = nic.region(STAG, BASE, new Uint8Array(size));
  const sink = nic.region(STAG + 1, BASE, new Uint8Array(size));
  const pongs: string[] = [];
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < size - 1; i++) start[i] = 65 + ((i + round) % 58);
    sink.fill(0);
    await advertise(connection, STAG, size);
    await advertise(connection, STAG + 1, size);
    pongs.push(text(sink));
  }
  return pongs;
}

export function pingText(round: number, size: number): string {
  return text(Uint8Array.from({ length: size - 1 }, (_, i) => 65 + ((i + round) % 58)));
}

/** Sends what is asked for, and waits for the other side's go on. */
export async function advertise(connection: Connection, stag: number, size: number): Promise<void> {
  const { nic } = connection;
  const nrReceived = nic.received.length;
  const info = new Uint8Array(INFO_BYTES);
  put64(info, 0, BigInt(BASE));
  put32(info, 8, stag);
  put32(info, 12, size);
  nic.receives.push(new Uint8Array(INFO_BYTES));
  nic.queue.push({ opcode: RDMAP_SEND, payload: info });
  connection.flush();
  await connection.until(() => nic.received.length > nrReceived);
}

async function nextInfo(connection: Connection): Promise<{ to: number; stag: number; lenBytes: number }> {
  const { nic } = connection;
  await connection.until(() => nic.received.length > 0);
  const { bytes } = nic.received.shift()!;
  return { to: Number(get64(bytes, 0)), stag: get32(bytes, 8), lenBytes: get32(bytes, 12) };
}

function goOn(connection: Connection): void {
  connection.nic.receives.push(new Uint8Array(INFO_BYTES));
  connection.nic.queue.push({ opcode: RDMAP_SEND, payload: new Uint8Array(INFO_BYTES) });
  connection.flush();
}

function text(bytes: Uint8Array): string {
  const zero = bytes.indexOf(0);
  return String.fromCharCode(...bytes.subarray(0, zero < 0 ? bytes.length : zero));
}
