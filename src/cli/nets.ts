import { randomBytes } from 'node:crypto';
import { InvalidArgumentError } from 'commander';
import { KernelError } from '../base/index.js';
import { type EthernetPort, EthernetSegment, type Outgoing, UserNetwork, VirtioNet } from '../machine/index.js';
import { nodeEnvironment, nodeNetBackend } from '../node/index.js';

/** The network cards of `unpin boot --net`: each guest gets one for each option. */

export interface HostForward {
  readonly hostPort: number;
  readonly guestPort: number;
}

export type NetOption =
  | { readonly kind: 'user'; readonly forwards: readonly HostForward[]; readonly outgoing: Outgoing }
  | { readonly kind: 'link'; readonly name: string };

const SETTINGS = 'hostfwd=tcp:HOSTPORT:GUESTPORT or outgoing=none, loopback or any';
const MAX_PORT = 65535;

/** For commander: appends what `text` says to the cards before it. */
export function parseNet(text: string, before: readonly NetOption[] | undefined): NetOption[] {
  const link = /^link:([\w.-]+)$/.exec(text);
  if (link !== null) return [...(before ?? []), { kind: 'link', name: link[1]! }];
  const [kind, ...settings] = text.split(',');
  if (kind !== 'user')
    throw new InvalidArgumentError(`'${text}' must be 'link:NAME' or 'user', with ${SETTINGS} behind commas.`);
  const forwards: HostForward[] = [];
  let outgoing: Outgoing = 'loopback';
  for (const setting of settings) {
    const where = /^outgoing=(none|loopback|any)$/.exec(setting);
    if (where !== null) outgoing = where[1] as Outgoing;
    else forwards.push(parseForward(setting, text));
  }
  return [...(before ?? []), { kind: 'user', forwards, outgoing }];
}

function parseForward(setting: string, text: string): HostForward {
  const match = /^hostfwd=tcp:(\d+):(\d+)$/.exec(setting);
  if (match === null) throw new InvalidArgumentError(`'${setting}' in '${text}' must be ${SETTINGS}.`);
  const [hostPort, guestPort] = [Number(match[1]), Number(match[2])];
  const bad = [hostPort, guestPort].find((port) => port < 1 || port > MAX_PORT);
  if (bad !== undefined) throw new InvalidArgumentError(`port ${bad} in '${setting}' must be from 1 to ${MAX_PORT}.`);
  return { hostPort, guestPort };
}

export class Nets {
  private readonly options: readonly NetOption[];
  private readonly segments = new Map<string, EthernetSegment>();
  /** Those of each guest. */
  private readonly ports: EthernetPort[][] = [];

  /** Throws KernelError EINVAL where a guest's forwarded port would be none, or another's as well. */
  constructor(options: readonly NetOption[], nrGuests: number) {
    checkForwards(options, nrGuests);
    this.options = options;
  }

  /** The cards of guest `index`, in the order of the options: eth0, eth1. Rejects with KernelError for a port that cannot be listened on. */
  async devices(index: number): Promise<VirtioNet[]> {
    const ports: EthernetPort[] = [];
    this.ports[index] = ports;
    const cards: VirtioNet[] = [];
    for (const [nr, option] of this.options.entries()) {
      const mac = macOf(index, nr);
      const port = option.kind === 'link' ? this.segment(option.name).port() : userNetwork(option.outgoing, mac);
      ports.push(port);
      if (option.kind === 'user' && port instanceof UserNetwork)
        for (const forward of option.forwards) await port.forward(hostPortOf(forward, index), forward.guestPort);
      cards.push(new VirtioNet({ mac, port }));
    }
    return cards;
  }

  private segment(name: string): EthernetSegment {
    let segment = this.segments.get(name);
    if (segment === undefined) this.segments.set(name, (segment = new EthernetSegment()));
    return segment;
  }

  /** Guest `index` is done: its connections end, and its ports are free. */
  closeGuest(index: number): void {
    for (const port of this.ports[index] ?? []) port.close();
  }

  close(): void {
    for (const index of this.ports.keys()) this.closeGuest(index);
  }
}

/** Several guests cannot have the same port of the host: each next one has the next. */
function hostPortOf({ hostPort }: HostForward, guest: number): number {
  return hostPort + guest;
}

function checkForwards(options: readonly NetOption[], nrGuests: number): void {
  const taken = new Map<number, string>();
  for (const forward of options.flatMap((option) => (option.kind === 'user' ? option.forwards : []))) {
    const said = `hostfwd=tcp:${forward.hostPort}:${forward.guestPort}`;
    for (let guest = 0; guest < nrGuests; guest++) {
      const port = hostPortOf(forward, guest);
      const other = taken.get(port);
      if (port > MAX_PORT) refuseForward(said, guest, `port would be ${port}; it must be at most ${MAX_PORT}`);
      if (other !== undefined) refuseForward(said, guest, `port ${port} must be another: ${other} has it`);
      taken.set(port, `guest${guest} by ${said}`);
    }
  }
}

function refuseForward(said: string, guest: number, why: string): never {
  throw new KernelError('EINVAL', 'boot', `--net ${said}: guest${guest}'s ${why} (each next guest has the next port)`);
}

function userNetwork(outgoing: Outgoing, guestMac: Uint8Array): UserNetwork {
  const random = () => randomBytes(4).readUInt32LE();
  return new UserNetwork({ backend: nodeNetBackend(), clock: nodeEnvironment(), guestMac, outgoing, random });
}

/** QEMU's 52:54:00:12:34:56 for the first; the fifth byte counts cards, the last one guests. */
function macOf(guest: number, card: number): Uint8Array {
  return Uint8Array.of(0x52, 0x54, 0x00, 0x12, 0x34 + card, 0x56 + guest);
}
