import { InvalidArgumentError } from 'commander';

/**
 * Values of command line options. A bad one is refused with a message that names it and what would be right.
 */

const UNITS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** Bytes from `64M`, `1G`, `4096`; a multiple of the page size, from `min` to `max`. */
export function parseSize(min: number, max: number): (text: string) => number {
  return (text) => {
    const match = /^(\d+)([KMG]?)$/i.exec(text);
    if (match === null) throw new InvalidArgumentError(`'${text}' must be a size such as 128M or 1G.`);
    const bytes = Number(match[1]) * UNITS[match[2]!.toUpperCase()]!;
    if (bytes < min || bytes > max) {
      throw new InvalidArgumentError(`'${text}' must be from ${formatSize(min)} to ${formatSize(max)}.`);
    }
    if (bytes % 4096 !== 0) throw new InvalidArgumentError(`'${text}' must be a multiple of 4096 bytes.`);
    return bytes;
  };
}

export function parseCount(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`'${text}' must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** What Node's timers can wait: 2^31 - 1 milliseconds, 24 days. */
const MAX_SECONDS = 2_147_483;

export function parseSeconds(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value <= 0 || value > MAX_SECONDS) {
    throw new InvalidArgumentError(`'${text}' must be a number of seconds above 0, at most ${MAX_SECONDS}.`);
  }
  return value;
}

/** `64 MiB`, `1.5 GiB`. */
export function formatSize(bytes: number): string {
  for (const [unit, size] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const) {
    if (bytes >= size) return `${Number((bytes / size).toFixed(1))} ${unit}`;
  }
  return `${bytes} B`;
}
