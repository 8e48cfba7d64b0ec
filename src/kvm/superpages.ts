/**
 * The hull of the virtual pages that a hart's TLB may have from superpages of the guest (QEMU: tlb_add_large_page). The TLB
 * has pages of 4 KiB alone, and a fence of one address in a superpage concerns all of it: where an address lies in the hull, the whole
 * TLB goes. Pages are 27 bits of vpn, so that a kernel's superpages, which lie high, do not make hulls that reach user space.
 */
const NO_FIRST = 2 ** 27;

export class SuperpageRange {
  first = NO_FIRST;
  last = -1;

  /** The TLB gets a page of a superpage; level 1: of 2 MiB, 2: of 1 GiB. */
  note(vpn: number, level: number): void {
    const inside = 512 ** level - 1;
    this.first = Math.min(this.first, vpn & ~inside);
    this.last = Math.max(this.last, vpn | inside);
  }

  covers(vpn: number): boolean {
    return vpn >= this.first && vpn <= this.last;
  }

  /** The TLB was flushed. */
  clear(): void {
    this.first = NO_FIRST;
    this.last = -1;
  }
}
