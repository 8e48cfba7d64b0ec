import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/**
 * Linux with siw, in QEMU's emulation: what scripts/debian-siw has put into the folder that UNPIN_DEBIAN_SIW names.
 *
 *     scripts/debian-siw debian-siw
 *     UNPIN_DEBIAN_SIW=debian-siw npm run test:long
 */

const folder = process.env.UNPIN_DEBIAN_SIW ?? 'debian-siw';
const QEMU = 'qemu-system-x86_64';
const MACHINE = [
  '-nodefaults',
  '-no-user-config',
  '-M',
  'q35',
  '-cpu',
  'max',
  '-m',
  '256',
  '-display',
  'none',
  '-no-reboot',
];
const RPING_PORT = 7174;

export const present = existsSync(join(folder, 'vmlinuz')) && spawnSync(QEMU, ['--version']).status === 0;
if (!present) console.warn(`SKIPPED: siw (no ${folder}/vmlinuz or no ${QEMU}; see scripts/debian-siw)`);

export class SiwGuest {
  console = '';
  private ended = false;
  private readonly child: ChildProcess;
  private grown: () => void = () => {};
  private readonly work = mkdtempSync(join(tmpdir(), 'unpin-siw-'));

  /** Boots it; it runs the command and powers off. */
  constructor(command: string) {
    const append = `console=ttyS0 quiet panic=-1 unpin.run="${command}"`;
    const kernel = ['-kernel', join(folder, 'vmlinuz'), '-initrd', join(folder, 'initrd.gz'), '-append', append];
    const card = [
      '-netdev',
      `user,id=net,hostfwd=tcp:127.0.0.1:0-10.0.2.15:${RPING_PORT}`,
      '-device',
      'virtio-net-pci,netdev=net',
    ];
    const monitor = ['-qmp', `unix:${this.monitor},server=on,wait=off`, '-serial', 'stdio'];
    this.child = spawn(QEMU, [...MACHINE, ...kernel, ...card, ...monitor], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.child.stdout!.on('data', (bytes: Buffer) => {
      this.console += bytes.toString();
      this.grown();
    });
    this.child.on('close', () => {
      this.ended = true;
      this.grown();
    });
  }

  /** Waits until the console has a line like this. */
  async line(pattern: RegExp): Promise<RegExpMatchArray> {
    for (;;) {
      const match = this.console.match(pattern);
      if (match !== null) return match;
      if (this.ended) throw new Error(`the guest has ended without ${pattern}:\n${this.console}`);
      await new Promise<void>((resolve) => (this.grown = resolve));
    }
  }

  /** What comes of `work`, unless the guest ends before. */
  during<T>(work: Promise<T>): Promise<T> {
    const never = new Promise<never>((_, reject) => this.child.once('close', () => reject(new Error(this.console))));
    return Promise.race([work, never]);
  }

  private get monitor(): string {
    return join(this.work, 'monitor');
  }

  /** The port of this machine's loopback that leads to rping in the guest. */
  async port(): Promise<number> {
    while (!existsSync(this.monitor)) await new Promise((resolve) => setTimeout(resolve, 50));
    const forwards = await monitorCommand(this.monitor, 'info usernet');
    const [line] = forwards.match(/HOST_FORWARD.*/)!;
    return Number(line.trim().split(/\s+/)[3]);
  }

  stop(): void {
    this.child.kill('SIGKILL');
    rmSync(this.work, { recursive: true });
  }
}

/** QEMU's monitor protocol: a greeting, an answer to qmp_capabilities, an answer to the command; a line each. */
async function monitorCommand(path: string, command: string): Promise<string> {
  const socket = net.connect(path);
  const lines = createInterface(socket)[Symbol.asyncIterator]();
  const say = (what: object) => socket.write(`${JSON.stringify(what)}\n`);
  try {
    await lines.next();
    say({ execute: 'qmp_capabilities' });
    await lines.next();
    say({ execute: 'human-monitor-command', arguments: { 'command-line': command } });
    return JSON.parse((await lines.next()).value).return;
  } finally {
    socket.destroy();
  }
}
