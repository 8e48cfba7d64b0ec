import type { HostStats } from '../mm/index.js';
import type { GuestReport } from '../vmm/index.js';
import { formatSize } from './args.js';
import { table } from './table.js';

/** What `unpin boot` tells when its guests are done: a table for people, JSON for programs. */

export function toJson(guests: readonly GuestReport[], host: HostStats): string {
  return `${JSON.stringify({ guests, host }, null, 2)}\n`;
}

export function reportText(guests: readonly GuestReport[], host: HostStats): string {
  const rows = guests.map((g) => [
    g.name,
    g.exit,
    formatSize(g.ramBytes),
    formatSize(g.residentPeakBytes),
    `${(g.wallMs / 1000).toFixed(1)} s`,
    `${(g.instructions / 1e6).toFixed(0)} M`,
    String(g.faults.minor),
    String(g.faults.major),
  ]);
  const head = ['guest', 'exit', 'RAM', 'peak', 'wall', 'instructions', 'minor', 'major'];
  const ram = guests.reduce((sum, g) => sum + g.ramBytes, 0);
  return (
    `\n${table([head, ...rows])}\n\n  ${formatSize(ram)} of guest RAM in ${formatSize(host.frames * 4096)} of frames; ` +
    `swapped out ${host.swapOutPages} pages, in ${host.swapInPages}; pinned ${host.pinnedFrames}; ` +
    `shootdowns ${host.shootdowns}\n${balloonText(guests)}`
  );
}

function balloonText(guests: readonly GuestReport[]): string {
  const given = guests.flatMap(({ balloon }) => (balloon ? [balloon.inflatedBytes + balloon.reportedBytes] : []));
  if (given.length === 0) return '';
  return `  given back by balloons ${formatSize(given.reduce((sum, bytes) => sum + bytes, 0))}\n`;
}
