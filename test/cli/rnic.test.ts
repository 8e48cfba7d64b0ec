import { describe, expect, test } from 'vitest';
import { boot, expectRefused, unpin } from './command.js';

/** `unpin boot --rdma`: a guest rings for its NIC, which moves the guest's memory to a server and back while both hosts take their pages away. */

const RNICHOG = new URL('../../guests/images/rnichog.img', import.meta.url).pathname;
const VERDICT = /MiB written to a peer and read back \d+ times: 0 errors, checksum 0x[0-9a-f]+/g;

async function serve(region: string) {
  const server = unpin(['rdma', 'server', '--port', '0', '--region', region, '--frames', '4M'], { killMs: 60_000 });
  await server.until(/port \d+\n/);
  return { server, port: /port (\d+)\n/.exec(server.stdout)![1]! };
}

describe('rnichog', () => {
  test('S11: two guests, in a third of their memory, write it to a server of a fifth of that, and read it back', async () => {
    const { server, port } = await serve('32M');
    const guests = [
      '--kernel',
      RNICHOG,
      '--rdma',
      port,
      '--guests',
      '2',
      '--ram',
      '12M',
      '--frames',
      '8M',
      '--append',
      'mib=9',
    ];
    const { stdout, code } = await boot([...guests, '--threads'], { killMs: 60_000 });
    expect(stdout.match(VERDICT)).toHaveLength(2);
    expect(code).toBe(0);
    server.process.kill('SIGTERM');
    const { stderr } = await server.done;
    expect(stderr).toMatch(/2 connections; received \d+(\.\d+)? MiB[\s\S]*pinned 0/);
  });

  test('a server that goes away costs the guest its request, and nobody more', async () => {
    const { server, port } = await serve('16M');
    const guest = unpin(['boot', '--kernel', RNICHOG, '--rdma', port, '--ram', '8M', '--append', 'passes=1000'], {
      killMs: 60_000,
    });
    await guest.until(/pass 1 of 1000/);
    server.process.kill('SIGKILL');
    const { stdout, code } = await guest.done;
    expect(stdout).toMatch(/FAILED: request \d+: .*status 3/);
    expect(code).toBe(1);
  });
});

test('what is refused', async () => {
  expectRefused(await boot(['--rdma', 'nowhere']), /'nowhere' must be a port from 1 to 65535, or HOST:PORT/);
  expectRefused(
    await boot(['--rdma', '1']),
    /^unpin: ECONNREFUSED: rdma_cm: 127\.0\.0\.1 port 1: nobody listens there; it must be where/,
  );
});
