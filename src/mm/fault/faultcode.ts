/** What a page fault is asked for, and what it answers where it is not a pfn. */

/** Asked for in order to write: the page becomes dirty. */
export const FAULT_FLAG_WRITE = 1;

/** It needs I/O or a free frame: `faultIn`, then try again. */
export const FAULT_RETRY = -1;
/** No VMA there, or not with that right. */
export const FAULT_SIGSEGV = -2;
/** The page's contents are lost: a machine check for its owner. */
export const FAULT_HWPOISON = -3;
/** No page table can be had. */
export const FAULT_OOM = -4;
/** A page of a file, beyond its end. */
export const FAULT_SIGBUS = -5;
