import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Answer, GuestOutcome, Request, UsersOutcome } from './worker.js';

/**
 * The core layers in a browser: base, mm, notifier and guestram by `unpin start`'s workload, riscv, machine, kvm and vmm by our guest,
 * vCPUs' threads too, each in a worker of headless Chromium, from a page that is cross-origin isolated (shared memory needs that).
 */

const CHROMIUM = '/usr/bin/chromium';
const MIB = 2 ** 20;
const ARGS =
  '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';
const HEADERS = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };
const absent = !fs.existsSync(CHROMIUM);
if (absent) console.warn(`SKIPPED: the tests in a browser, since there is no ${CHROMIUM} (apt-get install chromium)`);

const file = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

async function bundle(entry: string): Promise<Uint8Array> {
  const options = { bundle: true, platform: 'browser', format: 'esm', write: false } as const;
  return (await build({ ...options, entryPoints: [file(entry)] })).outputFiles[0]!.contents;
}

/** Serves the page, the workers and the guests on the loopback address. */
async function serve(): Promise<http.Server> {
  const files: Record<string, [string, string | Uint8Array]> = {
    '/': ['text/html', '<!doctype html><title>unpin</title>'],
    '/worker.js': ['text/javascript', await bundle('worker.ts')],
    '/vcpuworker.js': ['text/javascript', await bundle('vcpuworker.ts')],
    '/memhog.img': ['application/octet-stream', fs.readFileSync(file('../../guests/images/memhog.img'))],
    '/smphog.img': ['application/octet-stream', fs.readFileSync(file('../../guests/images/smphog.img'))],
  };
  const server = http.createServer((request, response) => {
    const found = files[request.url!];
    response.writeHead(found ? 200 : 404, { ...HEADERS, 'content-type': found?.[0] ?? 'text/plain' }).end(found?.[1]);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

describe.skipIf(absent)('in Chromium', () => {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'unpin-chromium-'));
  let server: http.Server;
  let context: BrowserContext;
  let page: Page;

  beforeAll(async () => {
    server = await serve();
    context = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: ARGS.split(' ') });
    page = await context.newPage();
    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  }, 60_000);

  afterAll(async () => {
    await context?.close();
    server?.close();
    fs.rmSync(profile, { recursive: true, force: true });
  });

  /** Has a worker of its own do it. */
  async function inWorker<T>(request: Request): Promise<T> {
    const answer = (await page.evaluate(
      `new Promise((resolve) => {
        const worker = new Worker('/worker.js', { type: 'module' });
        worker.onmessage = ({ data }) => { worker.terminate(); resolve(data); };
        worker.onerror = ({ message }) => resolve({ failure: message });
        worker.postMessage('${request}');
      })`,
    )) as Answer;
    if ('failure' in answer) throw new Error(answer.failure);
    return answer.outcome as T;
  }

  test('the page is cross-origin isolated', async () => {
    expect(await page.evaluate('crossOriginIsolated')).toBe(true);
  });

  test('three users with three times the memory of the host: pinned refused, with notifiers verified', async () => {
    const outcome = await inWorker<UsersOutcome>('users');
    expect(outcome.locked).toEqual([
      undefined,
      expect.stringMatching(/^ENOMEM: mlock: 32768 KiB cannot be locked beside the 24576 KiB/),
    ]);
    expect(outcome.verifiedBytes).toEqual([48 * MIB, 64 * MIB, 80 * MIB]);
    expect(outcome.pinnedFrames).toBe(0);
    for (const count of [outcome.clears, outcome.swapOutPages, outcome.swapInPages])
      expect(count).toBeGreaterThan(10_000);
  });

  test('our guest boots in less memory than it believes, and verifies all of it', async () => {
    const outcome = await inWorker<GuestOutcome>('guest');
    expect(outcome.console).toMatch(/memhog: 7 MiB in \d+ pages: verified \d+ words, 0 errors/);
    expect(outcome).toMatchObject({ exit: 'poweroff', reason: '' });
    expect(outcome.swapInPages).toBeGreaterThan(500);
  });

  test('vCPUs in threads of their own say what real harts say (test/guests/smphog.test.ts), in a third of their memory', async () => {
    const outcome = await inWorker<GuestOutcome>('threads');
    expect(outcome.console).toContain(
      'smphog: 2 harts, 16 MiB, parts 0x3ff, 1 rounds: 0 errors, checksum 0x7916b704c2a65a9b\n',
    );
    expect(outcome).toMatchObject({ exit: 'poweroff', reason: '' });
    expect(outcome.swapInPages).toBeGreaterThan(0);
  }, 180_000);
});
