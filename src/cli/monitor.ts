import type { Host } from '../mm/index.js';
import type { BalloonState, Guest } from '../vmm/index.js';
import { formatSize, parseSize } from './args.js';
import { table } from './table.js';

/**
 * The monitor: what one can ask of running guests, and tell them, by lines of text. A line that is no command gets one line of answer.
 *
 * Use: `await monitor.execute(line)`, which resolves with what is to be shown.
 */

export interface MonitorTarget {
  readonly host: Host;
  readonly guests: readonly Guest[];
  /** Ends the guests, and so the run. */
  quit(): void;
  /** Gives the keyboard to guest `i`; undefined: to none, and the lines of all are shown. */
  console(i: number | undefined): void;
}

interface MonitorCommand {
  readonly usage: string;
  readonly what: string;
  run(target: MonitorTarget, args: readonly string[]): string | Promise<string>;
}

const COMMANDS: Record<string, MonitorCommand> = {
  help: { usage: 'help', what: 'this text', run: () => help() },
  info: {
    usage: 'info mem|notifiers|guests|vcpus|balloon|idle',
    what: 'frames and swap; calls of notifiers; guests; their vCPUs; their balloons; what they use',
    run: (target, [about = '', ...rest]) => info(target, about, rest),
  },
  stop: {
    usage: 'stop [N]',
    what: 'stop the vCPUs of all guests, or of guest N',
    run: async (target, args) => {
      const guests = running(chosen(target, args));
      await Promise.all(guests.map((guest) => guest.pause()));
      return says(guests, 'stopped');
    },
  },
  cont: {
    usage: 'cont [N]',
    what: 'let them go on',
    run: (target, args) => {
      const guests = running(chosen(target, args));
      for (const guest of guests) guest.resume();
      return says(guests, 'running');
    },
  },
  balloon: {
    usage: 'balloon SIZE [N]',
    what: 'ask all guests, or guest N, to give so much of their RAM back',
    run: (target, [size = '', ...rest]) => askBalloons(running(chosen(target, rest)), size),
  },
  console: {
    usage: 'console N|all',
    what: 'give the keyboard to guest N; or show the lines of all',
    run: (target, args) => {
      target.console(args[0] === 'all' ? undefined : guestIndex(target, args[0] ?? ''));
      return '';
    },
  },
  quit: {
    usage: 'quit',
    what: 'end the guests',
    run: (target) => {
      target.quit();
      return '';
    },
  },
};

/** What a line asks for and cannot be: its message is the answer. */
class Refusal extends Error {}

export class Monitor {
  private readonly target: MonitorTarget;

  constructor(target: MonitorTarget) {
    this.target = target;
  }

  /** Never rejects for what was typed. May wait, for vCPUs that stop. */
  async execute(line: string): Promise<string> {
    const [name = '', ...args] = line.trim().split(/\s+/);
    if (name === '') return '';
    try {
      const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
      if (command === undefined) throw new Refusal(`'${name}' must be one of ${Object.keys(COMMANDS).join(', ')}`);
      return await command.run(this.target, args);
    } catch (error) {
      if (error instanceof Refusal) return `${error.message}\n`;
      throw error;
    }
  }

  /** Lines that begin as this one does, for a line editor. */
  complete(line: string): string[] {
    const lines = [
      'help',
      'info mem',
      'info notifiers',
      'info guests',
      'info vcpus',
      'info balloon',
      'info idle',
      'stop',
      'cont',
      'balloon ',
      'console ',
      'quit',
    ];
    return lines.filter((known) => known.startsWith(line));
  }
}

function help(): string {
  const width = Math.max(...Object.values(COMMANDS).map(({ usage }) => usage.length));
  const lines = Object.values(COMMANDS).map(({ usage, what }) => `  ${usage.padEnd(width)}  ${what}\n`);
  return lines.join('');
}

const INFO: Record<string, (target: MonitorTarget) => string | Promise<string>> = {
  mem: infoMem,
  notifiers: infoNotifiers,
  guests: infoGuests,
  vcpus: infoVcpus,
  balloon: infoBalloon,
  idle: infoIdle,
};

function info(target: MonitorTarget, about: string, rest: readonly string[]): string | Promise<string> {
  if (!Object.hasOwn(INFO, about) || rest.length > 0) {
    throw new Refusal(`info '${[about, ...rest].join(' ')}' must be one of ${Object.keys(INFO).join(', ')}`);
  }
  return INFO[about]!(target);
}

function infoMem({ host }: MonitorTarget): string {
  const stats = host.stats();
  const pages = (nr: number) => [String(nr), formatSize(nr * 4096)];
  const rows = [
    ['', 'pages', 'bytes'],
    ['frames', ...pages(stats.frames)],
    ['free', ...pages(stats.framesFree)],
    ['active', ...pages(stats.nrActive)],
    ['inactive', ...pages(stats.nrInactive)],
    ['pinned', ...pages(stats.pinnedFrames)],
    ['swap', ...pages(stats.swapSlots)],
    ['swap used', ...pages(stats.swapSlotsUsed)],
    ['swapped out', ...pages(stats.swapOutPages)],
    ['swapped in', ...pages(stats.swapInPages)],
  ];
  return `${table(rows)}\n  page tables ${formatSize(stats.tableBytes)}, swap's metadata ${formatSize(stats.swapMetadataBytes)}\n`;
}

function infoNotifiers({ host, guests }: MonitorTarget): string {
  const { notifierCalls, shootdowns, retries, refusals, poisoned } = host.stats();
  const rows = [['callback', 'calls'], ...Object.entries(notifierCalls).map(([name, calls]) => [name, String(calls)])];
  const subscribers = guests.map(({ name, mm }) => `${name} ${mm.notifiers.nrSubscriptions}`).join(', ');
  return (
    `${table(rows)}\n  subscribers: ${subscribers}\n` +
    `  shootdowns ${shootdowns}, retries ${retries}, refusals ${refusals}, poisoned ${poisoned}\n`
  );
}

function infoGuests({ guests }: MonitorTarget): string {
  const rows = guests.map((guest) => {
    const resident = formatSize(guest.mm.residentPages * 4096);
    return [
      guest.name,
      guest.state,
      formatSize(guest.ramBytes),
      resident,
      String(guest.faults.minor),
      String(guest.faults.major),
    ];
  });
  return `${table([['guest', 'state', 'RAM', 'resident', 'minor', 'major'], ...rows])}\n`;
}

function infoVcpus({ guests }: MonitorTarget): string {
  const rows = guests.flatMap((guest) =>
    guest
      .vcpuStates()
      .map(({ id, mode, pc, root, instructions }) => [
        `${guest.name}/${id}`,
        mode,
        `0x${pc.toString(16).padStart(16, '0')}`,
        root,
        String(instructions),
      ]),
  );
  return `${table([['vcpu', 'mode', 'pc', 'satp', 'instructions'], ...rows])}\n`;
}

async function infoBalloon({ guests }: MonitorTarget): Promise<string> {
  const texts = await Promise.all(guests.map(async (guest) => balloonText(guest.name, await guest.balloonState())));
  return texts.join('');
}

function balloonText(name: string, balloon: BalloonState | undefined): string {
  if (balloon === undefined) return `  ${name}: no balloon\n`;
  const { targetBytes, actualBytes, inflatedBytes, reportedBytes, stats } = balloon;
  const held = `target ${formatSize(targetBytes)}, actual ${formatSize(actualBytes)}`;
  const given = `inflated ${formatSize(inflatedBytes)}, reported ${formatSize(reportedBytes)}`;
  const told = Object.entries(stats ?? {}).map(([tag, value]) => `${tag} ${statText(tag, value)}`);
  return `  ${name}: ${held}, ${given}\n    ${told.length === 0 ? 'no statistics' : told.join(', ')}\n`;
}

/** All of them are looked at before one is asked. */
function askBalloons(guests: readonly Guest[], size: string): string {
  const bytes = balloonSize(size);
  const small = guests.find(({ ramBytes }) => bytes >= ramBytes);
  if (small !== undefined)
    throw new Refusal(`'${size}' must be less than the ${formatSize(small.ramBytes)} of RAM that ${small.name} has`);
  const without = guests.filter((guest) => !guest.askBalloon(bytes));
  const asked = guests.filter((guest) => !without.includes(guest));
  const told = without.map(({ name }) => `${name}: no balloon: 'unpin boot' must be given --balloon\n`);
  return (asked.length > 0 || guests.length === 0 ? says(asked, `asked for ${formatSize(bytes)}`) : '') + told.join('');
}

function balloonSize(text: string): number {
  try {
    return parseSize(0, 2 ** 40)(text);
  } catch (error) {
    throw new Refusal((error as Error).message);
  }
}

/** The working set of each guest: what it has used since this was asked last. */
function infoIdle({ host, guests }: MonitorTarget): string {
  const rows = guests.map(({ name, mm }) => {
    const { nrIdle, nrUsed } = host.pageIdle.countMm(mm);
    host.pageIdle.setIdleMm(mm);
    return [name, formatSize(nrUsed * 4096), formatSize(nrIdle * 4096)];
  });
  return `${table([['guest', 'used', 'idle'], ...rows])}\n  since this was asked last; the first time all counts as used\n`;
}

const COUNTED_IN_BYTES = ['swapIn', 'swapOut', 'freeMemory', 'totalMemory', 'availableMemory', 'diskCaches'];

function statText(tag: string, value: number): string {
  return COUNTED_IN_BYTES.includes(tag) ? formatSize(value) : String(value);
}

/** Guest N, or all without one. */
function chosen(target: MonitorTarget, args: readonly string[]): readonly Guest[] {
  return args.length === 0 ? target.guests : [target.guests[guestIndex(target, args[0]!)]!];
}

function guestIndex({ guests }: MonitorTarget, text: string): number {
  const i = Number(text);
  if (!/^\d+$/.test(text) || i >= guests.length) {
    throw new Refusal(`guest '${text}' must be ${guests.length === 1 ? '0' : `from 0 to ${guests.length - 1}`}`);
  }
  return i;
}

function running(guests: readonly Guest[]): Guest[] {
  return guests.filter(({ state }) => state === 'running' || state === 'paused');
}

function says(guests: readonly Guest[], what: string): string {
  return guests.length === 0 ? 'no guest runs any more\n' : `${guests.map(({ name }) => name).join(', ')}: ${what}\n`;
}
