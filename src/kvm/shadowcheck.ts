import { bug } from '../base/index.js';
import { DIRECT_V, DIRECT_W } from './memslot.js';
import type { GfnLookup } from './rmap.js';
import type { ShadowPages } from './shadow.js';
import {
  ENTRIES,
  NO_VPN,
  PAGE_GFN,
  PAGE_ROLE,
  PAGE_VPN,
  roleIsDirect,
  roleLevel,
  roleRights,
  type ShadowPool,
} from './shadowpool.js';
import { SPTE_R, SPTE_U, SPTE_W, SPTE_X } from './spte.js';

/**
 * The whole-state checker of shadow pages, for tests. Throws BrokenInvariant.
 *
 * N3, N5: a shadow entry shows the frame that its direct entry has, with no more rights. S9: pages are found by what they
 * shadow, a link's page knows of the link and has the level below, and a page with one place has no other.
 */
export function checkShadowPages(shadow: ShadowPages, slots: GfnLookup): void {
  const { pool, tree } = shadow;
  const links = countLinks(pool);
  for (let page = 0; page < pool.nrPages; page++) {
    if (!pool.isUsed(page)) continue;
    if (pool.find(pool.get(page, PAGE_GFN) >>> 0, pool.get(page, PAGE_ROLE)) !== page)
      bug('S9', `shadow page ${page} is not found by its frame and role`);
    let nrParents = 0;
    tree.forEachParent(page, (index) => {
      nrParents++;
      if (pool.entries.readOnce(index) >>> 1 !== page) bug('S9', `entry ${index} is no link to page ${page}`);
      checkPlace(shadow, page, index);
    });
    for (let slot = 0; slot < ENTRIES; slot++) {
      if (pool.entries.readOnce(page * ENTRIES + slot) === 0) continue;
      if (roleLevel(pool.get(page, PAGE_ROLE)) === 0) checkLeaf(shadow, slots, page * ENTRIES + slot);
      else checkLink(shadow, page, slot);
    }
    if (nrParents !== links[page]) bug('S9', `page ${page} knows of ${nrParents} links to it of ${links[page]}`);
  }
}

function checkPlace({ pool, tree }: ShadowPages, page: number, index: number): void {
  const place = pool.get(page, PAGE_VPN);
  const expected = tree.placeOf(index >>> 9, index & (ENTRIES - 1));
  if (place !== NO_VPN && place !== expected) bug('S9', `page ${page} is at vpn ${expected}, and thinks ${place}`);
}

function checkLink({ pool, tree }: ShadowPages, page: number, slot: number): void {
  const below = tree.below(page, slot);
  const role = pool.get(page, PAGE_ROLE);
  if (!pool.isUsed(below)) bug('S9', `page ${page} links to page ${below}, which is free`);
  const roleBelow = pool.get(below, PAGE_ROLE);
  if (roleLevel(roleBelow) !== roleLevel(role) - 1) bug('S9', `page ${page} links to page ${below}, of another level`);
  if (!roleIsDirect(role)) return;
  const gfn = ((pool.get(page, PAGE_GFN) >>> 0) + slot * ENTRIES) >>> 0;
  if (!roleIsDirect(roleBelow) || roleRights(roleBelow) !== roleRights(role) || pool.get(below, PAGE_GFN) >>> 0 !== gfn)
    bug('S9', `page ${page} for a superpage links to page ${below}, which is not for a part of it`);
}

function checkLeaf(shadow: ShadowPages, slots: GfnLookup, index: number): void {
  const { pool } = shadow;
  const gfn = shadow.gfn(index);
  const spte = shadow.spte(index);
  const slot = slots.find(gfn);
  const direct = slot?.direct.readOnce(gfn - slot.baseGfn) ?? 0;
  if ((direct & DIRECT_V) === 0 || direct >>> 12 !== spte >>> 12) bug('N3', `spte ${index} outlived gfn ${gfn}`);
  if ((spte & SPTE_W) !== 0 && (direct & DIRECT_W) === 0) bug('N5', `spte ${index} is writable, gfn ${gfn} is not`);
  const role = pool.get(index >>> 9, PAGE_ROLE);
  if (!roleIsDirect(role)) return;
  if (gfn !== (pool.get(index >>> 9, PAGE_GFN) >>> 0) + (index & (ENTRIES - 1)))
    bug('S9', `spte ${index} of a superpage shows gfn ${gfn}`);
  if ((spte & (SPTE_R | SPTE_W | SPTE_X | SPTE_U) & ~roleRights(role)) !== 0)
    bug('N5', `spte ${index} allows more than its superpage`);
}

/** Links to each page. */
function countLinks(pool: ShadowPool): Int32Array {
  const links = new Int32Array(pool.nrPages);
  for (let page = 0; page < pool.nrPages; page++) {
    if (!pool.isUsed(page) || roleLevel(pool.get(page, PAGE_ROLE)) === 0) continue;
    for (let index = page * ENTRIES; index < (page + 1) * ENTRIES; index++)
      if (pool.entries.readOnce(index) !== 0) links[pool.entries.readOnce(index) >>> 1]!++;
  }
  return links;
}
