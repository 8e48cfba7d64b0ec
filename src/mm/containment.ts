import { PAGE_SIZE } from './layout.js';
import type { Mm } from './mm.js';
import { pinPage } from './page.js';

/**
 * Containment of a poisoned subscription (N19): the frames that its driver may still map are those that are mapped in its range.
 * They get a reference that is never given back, so that they are never another's. It costs memory, never another's data.
 */
export function pinMappedFrames(mm: Mm, start: number, end: number): void {
  mm.forEachPresent(Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE), (_vpn, pfn) => pinPage(mm.host, pfn));
}
