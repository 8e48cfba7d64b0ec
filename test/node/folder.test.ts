import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MAX_HANDLES } from '../../src/machine/index.js';
import { openFolder } from '../../src/node/index.js';
import { encode, FuseClient, type FuseError, type Opcode, ROOT, request } from './fuseclient.js';

/** A real folder of this machine behind the FUSE server, and beside it what must not be reached. */

const EPERM = 1;
const ENOENT = 2;
const ENOTDIR = 20;
const EINVAL = 22;
const EROFS = 30;
const ESTALE = 116;

let base: string;
let root: string;
const closers: (() => Promise<void>)[] = [];

beforeEach(() => {
  base = fs.mkdtempSync(join(tmpdir(), 'unpin-share-'));
  root = join(base, 'root');
  fs.mkdirSync(join(root, 'd/e'), { recursive: true });
  fs.mkdirSync(join(base, 'outside'));
  fs.writeFileSync(join(base, 'outside/secret'), 'secret');
  fs.writeFileSync(join(root, 'a'), 'hello');
  fs.writeFileSync(join(root, 'd/x'), 'inside');
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  fs.rmSync(base, { recursive: true });
});

async function mount({ readOnly = false } = {}) {
  const folder = await openFolder(root, { readOnly });
  const client = await new FuseClient(folder).init();
  closers.push(async () => {
    await client.server.close();
    await folder.close();
  });
  return client;
}

async function errnoOf(work: Promise<unknown>): Promise<number> {
  try {
    await work;
    return 0;
  } catch (error) {
    return (error as FuseError).errno;
  }
}

/** Descriptors of this process that lead into the folder. */
function nrFds(): number {
  return fs.readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith(root);
    } catch {
      return false; // the one that listed them
    }
  }).length;
}

describe('a shared folder', () => {
  it('shows what is there: contents, attributes, names', async () => {
    const client = await mount();
    const { id, attr } = await client.lookup(ROOT, 'a');
    const stat = fs.statSync(join(root, 'a'));
    expect(attr).toMatchObject({ ino: BigInt(stat.ino), size: 5, mode: stat.mode, nlink: 1, uid: 0 });
    const fh = await client.open(id);
    expect((await client.read(fh, 0, 100)).toString()).toBe('hello');
    expect((await client.read(fh, 3, 1)).toString()).toBe('l');
    expect((await client.list(ROOT)).map(({ name }) => name).sort()).toEqual(['.', '..', 'a', 'd']);
    await client.release(fh);
  });

  it('lists a large folder whole, in small replies, by either call, and again from the middle', async () => {
    const names = Array.from({ length: 300 }, (_, i) => `file-${i}-${'x'.repeat(i % 90)}`);
    for (const name of names) fs.writeFileSync(join(root, 'd/e', name), '');
    const client = await mount();
    const id = await client.walk('d/e');
    for (const plus of [false, true]) {
      const listed = (await client.list(id, { plus, size: 512 })).map(({ name }) => name);
      expect(listed.slice(2).sort()).toEqual([...names].sort());
    }
    const fh = Number((await client.call('opendir', id, [0], [0])).getBigUint64(0, true));
    const at = async (offset: number) => {
      const view = await client.call('readdir', id, fh, offset, [300], [0], 0, [0], [0]);
      return Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString('hex');
    };
    const middle = await at(50);
    await at(200);
    expect(await at(50)).toBe(middle);
    expect(await at(1e9)).toBe('');
  });

  it('writes, truncates, makes, renames, links and removes', async () => {
    const client = await mount();
    const d = await client.walk('d');
    const { id, fh } = await client.create(d, 'new');
    expect(await client.write(fh, 0, Buffer.from('0123456789'))).toBe(10);
    await client.call('fsync', id, fh, [0], [0]);
    await client.setattr(id, { size: 4 });
    await client.release(fh);
    expect(fs.readFileSync(join(root, 'd/new'), 'utf8')).toBe('0123');
    await client.setattr(id, { mode: 0o640, mtime: 1_000_000_000 });
    expect(await client.getattr(id)).toMatchObject({ size: 4, mode: 0o100640, mtime: 1_000_000_000 });
    await client.call('mkdir', ROOT, [0o755], [0o22], 'm');
    const m = await client.walk('m');
    await client.call('rename', d, m, 'new', 'moved');
    expect(await client.getattr(id)).toMatchObject({ size: 4 });
    await client.call('link', m, id, 'hard');
    expect(fs.statSync(join(root, 'm/hard')).nlink).toBe(2);
    await client.call('symlink', ROOT, 'soft', '/any/where');
    const soft = await client.walk('soft');
    const target = await client.call('readlink', soft);
    expect(Buffer.from(target.buffer, target.byteOffset, target.byteLength).toString()).toBe('/any/where');
    await client.call('unlink', m, 'hard');
    await client.call('unlink', m, 'moved');
    await client.call('rmdir', ROOT, 'm');
    expect(fs.readdirSync(root).sort()).toEqual(['a', 'd', 'soft']);
  });

  it('an open file lives on when its name is gone', async () => {
    const client = await mount();
    const fh = await client.open(await client.walk('a'), 2);
    await client.call('unlink', ROOT, 'a');
    await client.write(fh, 0, Buffer.from('HELLO'));
    expect((await client.read(fh, 0, 9)).toString()).toBe('HELLO');
    await client.release(fh);
  });
});

describe('nothing outside is reached', () => {
  it('names that are more than one name are refused by every call', async () => {
    const client = await mount();
    for (const name of ['..', '.', '', '../outside', 'd/x', '/etc/passwd', 'd/../../outside/secret']) {
      const calls: [Opcode, ...(string | [number])[]][] = [
        ['lookup', name],
        ['mkdir', [0o755], [0], name],
        ['unlink', name],
        ['rmdir', name],
        ['create', [0o302], [0o644], [0], [0], name],
        ['mknod', [0o100644], [0], [0], [0], name],
        ['symlink', name, 'target'],
      ];
      for (const [op, ...fields] of calls) expect(await errnoOf(client.call(op, ROOT, ...fields)), op).toBe(EINVAL);
      expect(await errnoOf(client.call('rename', ROOT, ROOT, 'a', name))).toBe(EINVAL);
      expect(await errnoOf(client.call('rename', ROOT, ROOT, name, 'b'))).toBe(EINVAL);
    }
    expect(fs.readdirSync(join(base, 'outside'))).toEqual(['secret']);
  });

  it('the server asks no backend for such names, and the folder looks itself', async () => {
    const folder = await openFolder(root);
    closers.push(() => folder.close());
    const asked: string[] = [];
    const lookup: typeof folder.lookup = async (_, name) => {
      asked.push(Buffer.from(name).toString());
      throw new Error();
    };
    const client = await new FuseClient({ ...folder, root: folder.root, lookup }).init();
    for (const name of ['..', 'd/x', '.', 'fine', '...', '']) {
      await client.lookup(ROOT, name).catch(() => {});
      const bytes = Buffer.from(name);
      const refused = name === 'fine' || name === '...' ? /ENOENT/ : /EINVAL/;
      await expect(folder.lookup(folder.root, bytes)).rejects.toThrow(refused);
    }
    await expect(folder.lookup(folder.root, Buffer.from('a\0b'))).rejects.toThrow(/EINVAL/);
    expect(asked).toEqual(['fine', '...']);
  });

  it('links are not followed: neither as folders, nor opened, nor written through, nor changed', async () => {
    fs.symlinkSync(join(base, 'outside'), join(root, 'out'));
    fs.symlinkSync('../outside/secret', join(root, 'file'));
    const client = await mount();
    const out = await client.walk('out');
    const file = await client.walk('file');
    expect((await client.getattr(out)).mode & 0o170000).toBe(0o120000);
    expect(await errnoOf(client.lookup(out, 'secret'))).toBe(ENOTDIR);
    expect(await errnoOf(client.create(out, 'new'))).toBe(ENOTDIR);
    expect(await errnoOf(client.call('opendir', out, [0], [0]))).toBe(ENOTDIR);
    expect(await errnoOf(client.call('mkdir', out, [0o755], [0], 'new'))).toBe(ENOTDIR);
    expect(await errnoOf(client.open(file))).toBe(EPERM);
    expect(await errnoOf(client.create(ROOT, 'file', 0o101))).not.toBe(0);
    expect(await errnoOf(client.setattr(file, { size: 0 }))).not.toBe(0);
    expect(await errnoOf(client.setattr(file, { mode: 0o777 }))).not.toBe(0);
    await client.setattr(file, { mtime: 5 });
    await client.call('link', ROOT, file, 'hard');
    expect(fs.lstatSync(join(root, 'hard')).isSymbolicLink()).toBe(true);
    const secret = fs.statSync(join(base, 'outside/secret'));
    expect([secret.size, secret.nlink, secret.mtimeMs > 1e12]).toEqual([6, 1, true]);
    expect(fs.readdirSync(join(base, 'outside'))).toEqual(['secret']);
  });

  it('a folder that becomes a link between two steps leads nowhere', async () => {
    const client = await mount();
    const d = await client.walk('d');
    fs.renameSync(join(root, 'd'), join(root, 'was-d'));
    fs.symlinkSync(join(base, 'outside'), join(root, 'd'));
    const fh = await client.open((await client.lookup(d, 'x')).id);
    expect((await client.read(fh, 0, 10)).toString()).toBe('inside');
    expect(await errnoOf(client.lookup(d, 'secret'))).toBe(ENOENT);
    await client.release(fh);
  });

  it('nor where its descriptor was closed meanwhile and is opened anew: that is ESTALE', async () => {
    const client = await mount();
    const d = await client.walk('d');
    for (let i = 0; i < 300; i++) fs.writeFileSync(join(root, `f${i}`), '');
    for (let i = 0; i < 300; i++) await client.walk(`f${i}`);
    fs.renameSync(join(root, 'd'), join(root, 'was-d'));
    fs.symlinkSync(join(base, 'outside'), join(root, 'd'));
    expect(await errnoOf(client.lookup(d, 'secret'))).toBe(ESTALE);
    expect(await errnoOf(client.create(d, 'new'))).toBe(ESTALE);
    expect(fs.readdirSync(join(base, 'outside'))).toEqual(['secret']);
  });

  it('pipes and devices are neither made nor opened, and nobody waits for one', async () => {
    spawnSync('mkfifo', [join(root, 'pipe')]);
    const client = await mount();
    expect(await errnoOf(client.open(await client.walk('pipe')))).toBe(EPERM);
    expect(await errnoOf(client.create(ROOT, 'pipe', 0o102))).not.toBe(0);
    for (const type of [0o010000, 0o020000, 0o060000, 0o140000])
      expect(await errnoOf(client.call('mknod', ROOT, [type | 0o644], [0x103], [0], [0], 'node'))).toBe(EPERM);
    expect(fs.existsSync(join(root, 'node'))).toBe(false);
  });

  it('no file gets a set-user-ID bit', async () => {
    const client = await mount();
    const { id, fh } = await client.create(ROOT, 'su', 0o302, 0o6755);
    expect(fs.statSync(join(root, 'su')).mode & 0o7777).toBe(0o755);
    await client.setattr(id, { mode: 0o6755 });
    await client.call('mkdir', ROOT, [0o6755], [0], 'sd');
    await client.release(fh);
    expect(fs.statSync(join(root, 'su')).mode & 0o7000).toBe(0);
    expect(fs.statSync(join(root, 'sd')).mode & 0o6000).toBe(0);
  });

  it('read-only means that nothing changes', async () => {
    const client = await mount({ readOnly: true });
    const a = await client.walk('a');
    const before = fs.statSync(join(root, 'a'), { bigint: true });
    const refused = [
      client.open(a, 1),
      client.open(a, 2),
      client.create(ROOT, 'new'),
      client.setattr(a, { size: 0 }),
      client.setattr(a, { mode: 0o777 }),
      client.setattr(a, { mtime: 5 }),
      client.call('mkdir', ROOT, [0o755], [0], 'new'),
      client.call('mknod', ROOT, [0o100644], [0], [0], [0], 'new'),
      client.call('symlink', ROOT, 'new', 'target'),
      client.call('link', ROOT, a, 'new'),
      client.call('unlink', ROOT, 'a'),
      client.call('rmdir', ROOT, 'd'),
      client.call('rename', ROOT, ROOT, 'a', 'b'),
    ];
    for (const call of refused) expect(await errnoOf(call)).toBe(EROFS);
    expect(fs.readdirSync(root).sort()).toEqual(['a', 'd']);
    expect(fs.statSync(join(root, 'a'), { bigint: true }).ctimeNs).toBe(before.ctimeNs);
    expect((await client.read(await client.open(a), 0, 9)).toString()).toBe('hello');
  });
});

describe('bounds', () => {
  it('forgetting gives all back: nodes and descriptors', async () => {
    const before = nrFds();
    const client = await mount();
    for (let i = 0; i < 600; i++) fs.writeFileSync(join(root, 'd/e', `f${i}`), '');
    const id = await client.walk('d/e');
    await client.list(id, { plus: true });
    expect(client.server.nodes.size).toBe(602);
    expect(nrFds()).toBeLessThan(before + 300);
    for (const { id: child } of await client.list(id, { plus: true })) {
      if (child !== 0) await client.call('forget', child, 2);
    }
    expect(client.server.nodes.size).toBe(2);
    expect(await errnoOf(client.getattr(3_000_000))).toBe(ENOENT);
    for (const close of closers.splice(0)) await close();
    expect(nrFds()).toBe(before);
  });

  it('a guest that opens and never closes gets ENFILE, and all is closed at its end', async () => {
    const before = nrFds();
    const client = await mount();
    const a = await client.walk('a');
    for (let i = 0; i < MAX_HANDLES; i++) await client.open(a);
    expect(await errnoOf(client.open(a))).toBe(23);
    expect(await errnoOf(client.create(ROOT, 'new'))).toBe(23);
    for (const close of closers.splice(0)) await close();
    expect(nrFds()).toBe(before);
  });

  it('what is opened while the guest goes away is closed', async () => {
    const before = nrFds();
    const client = await mount();
    const a = await client.walk('a');
    const opening = [client.open(a), client.call('opendir', ROOT, [0], [0]), client.lookup(ROOT, 'd')].map(errnoOf);
    for (const close of closers.splice(0)) await close();
    await Promise.all(opening);
    expect(nrFds()).toBe(before);
  });
});

/** The same calls on a twin of the folder, by Node. */
describe('as the host itself', () => {
  const name = fc.constantFrom('p', 'q', 'r');
  const dir = fc.constantFrom('', 'p', 'q', 'p/q');
  const step = fc.oneof(
    fc.record({ op: fc.constant('mkdir' as const), dir, name }),
    fc.record({ op: fc.constant('rmdir' as const), dir, name }),
    fc.record({ op: fc.constant('unlink' as const), dir, name }),
    fc.record({ op: fc.constant('write' as const), dir, name, at: fc.nat(9000), lenBytes: fc.nat(3000) }),
    fc.record({ op: fc.constant('truncate' as const), dir, name, size: fc.nat(10_000) }),
    fc.record({ op: fc.constant('symlink' as const), dir, name, target: name }),
    fc.record({ op: fc.constant('rename' as const), dir, name, toDir: dir, toName: name }),
    fc.record({ op: fc.constant('link' as const), dir, name, toDir: dir, toName: name }),
  );
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  /** Ends at a link, as `noLinks` does. */
  async function folderOf(client: FuseClient, path: string): Promise<number> {
    const id = await client.walk(path);
    const { mode } = await client.getattr(id);
    if ((mode & 0o170000) === 0o120000) throw Object.assign(new Error(), { errno: ENOTDIR });
    return id;
  }

  async function byGuest(client: FuseClient, s: Step): Promise<void> {
    const parent = await folderOf(client, s.dir);
    if (s.op === 'mkdir') await client.call('mkdir', parent, [0o755], [0], s.name);
    else if (s.op === 'rmdir' || s.op === 'unlink') await client.call(s.op, parent, s.name);
    else if (s.op === 'symlink') await client.call('symlink', parent, s.name, s.target);
    else if (s.op === 'rename') await client.call('rename', parent, await folderOf(client, s.toDir), s.name, s.toName);
    else if (s.op === 'link') {
      const node = (await client.lookup(parent, s.name)).id;
      await client.call('link', await folderOf(client, s.toDir), node, s.toName);
    } else if (s.op === 'truncate') await client.setattr((await client.lookup(parent, s.name)).id, { size: s.size });
    else {
      const { fh } = await client.create(parent, s.name, 0o102);
      await client.write(fh, s.at, Buffer.alloc(s.lenBytes, s.name));
      await client.release(fh);
    }
  }

  /** A link in the way ends the walk, as it does for a guest's kernel that has not followed it. */
  function noLinks(twin: string, path: string): string {
    let at = twin;
    for (const part of path.split('/').filter((p) => p !== '')) {
      at = join(at, part);
      if (fs.lstatSync(at).isSymbolicLink()) throw Object.assign(new Error(), { errno: -ENOTDIR });
    }
    return at;
  }

  function byHost(twin: string, s: Step): void {
    const path = join(noLinks(twin, s.dir), s.name);
    if (s.op === 'mkdir') fs.mkdirSync(path, 0o755);
    else if (s.op === 'rmdir') fs.rmdirSync(path);
    else if (s.op === 'unlink') fs.unlinkSync(path);
    else if (s.op === 'symlink') fs.symlinkSync(s.target, path);
    else if (s.op === 'rename') fs.renameSync(path, join(noLinks(twin, s.toDir), s.toName));
    else if (s.op === 'link') {
      fs.lstatSync(path);
      fs.linkSync(path, join(noLinks(twin, s.toDir), s.toName));
    } else if (s.op === 'truncate') {
      if (!fs.lstatSync(path).isFile()) throw Object.assign(new Error(), { errno: -EINVAL });
      fs.truncateSync(path, s.size);
    } else {
      const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_NOFOLLOW, 0o644);
      fs.writeSync(fd, Buffer.alloc(s.lenBytes, s.name), 0, s.lenBytes, s.at);
      fs.closeSync(fd);
    }
  }

  function tree(path: string): unknown {
    const stat = fs.lstatSync(path);
    if (stat.isSymbolicLink()) return `-> ${fs.readlinkSync(path)}`;
    if (!stat.isDirectory()) return [stat.nlink, fs.readFileSync(path, 'latin1')];
    return Object.fromEntries(
      fs
        .readdirSync(path)
        .sort()
        .map((child) => [child, tree(join(path, child))]),
    );
  }

  it('random calls have the same effects and the same errors', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
        for (const part of ['root', 'twin']) fs.rmSync(join(base, part), { recursive: true, force: true });
        for (const part of ['root', 'twin']) fs.mkdirSync(join(base, part));
        const client = await mount();
        for (const s of steps) {
          const guest = await errnoOf(byGuest(client, s));
          let host = 0;
          try {
            byHost(join(base, 'twin'), s);
          } catch (error) {
            host = -(error as NodeJS.ErrnoException).errno!;
          }
          expect([s, guest]).toEqual([s, host]);
        }
        expect(tree(root)).toEqual(tree(join(base, 'twin')));
        for (const close of closers.splice(0)) await close();
      }),
      { numRuns: 60 },
    );
  });
});

describe('whatever a guest says', () => {
  it('nothing throws, replies are whole, and outside stays as it was', async () => {
    const opcode = fc.oneof(fc.integer({ min: 0, max: 55 }), fc.integer({ min: 0, max: 0xffff_ffff }));
    const text = fc.constantFrom('a', 'd', 'x', 'e', '..', '.', '../outside', 'out', 'new', '', 'y'.repeat(300));
    const word = fc.oneof(fc.nat(6), fc.integer({ min: 0, max: 0xffff_ffff }));
    const field = fc.oneof(
      text,
      word.map((value) => [value] as [number]),
      fc.oneof(fc.nat(8), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
      fc.uint8Array({ maxLength: 60 }),
    );
    const message = fc
      .record({
        opcode,
        node: fc.oneof(fc.nat(8), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
        fields: fc.array(field, { maxLength: 12 }),
      })
      .map(({ opcode: op, node, fields }) => request(op, node, encode(...fields)));
    const noise = fc.uint8Array({ maxLength: 120 });
    fs.symlinkSync(join(base, 'outside'), join(root, 'out'));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof({ weight: 8, arbitrary: message }, noise), { maxLength: 80 }),
        async (sent) => {
          const client = await mount();
          for (const path of ['a', 'd', 'd/x', 'out']) await client.walk(path).catch(() => 0);
          await client.open(2).catch(() => 0);
          const replies = await Promise.all(
            sent.map((bytes, i) => client.server.handle(bytes, i % 7 === 0 ? i : 70_000)),
          );
          for (const reply of replies) {
            if (reply === undefined) continue;
            expect(new DataView(reply.buffer, reply.byteOffset).getUint32(0, true)).toBe(reply.length);
          }
          for (const close of closers.splice(0)) await close();
        },
      ),
      { numRuns: 150 },
    );
    expect(fs.readdirSync(join(base, 'outside'))).toEqual(['secret']);
    expect(fs.readFileSync(join(base, 'outside/secret'), 'utf8')).toBe('secret');
    expect(fs.readdirSync(base).sort()).toEqual(['outside', 'root']);
  });
});

it('a folder that is none is refused, naming it', async () => {
  await expect(openFolder(join(base, 'nowhere'))).rejects.toThrow(/ENOENT: openFolder: folder '.*nowhere'/);
  await expect(openFolder(join(root, 'a'))).rejects.toThrow(/ENOTDIR: openFolder/);
});
