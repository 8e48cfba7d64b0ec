/**
 * A guest's RAM as a device reaches it (DMA), by guest-physical address. Implemented by whoever has the memory (`VmMemory` of unpin/kvm).
 *
 * A page may be absent: then the call returns a promise, nobody else is held up, and the call is done when it resolves. `undefined`, or the
 * value itself, is returned where all was present; `await` takes both. What is outside RAM is refused with KernelError EFAULT, thrown or
 * rejected; a page that cannot be had, with the mm's own error. A write that fails half way has moved what lies before.
 *
 * Memory order: the guest's harts may run meanwhile. `load16` and `store16` are one access, never torn, and a full fence: what was
 * called before them has happened before them, and they before what is called after. `read` and `write` promise no order among themselves.
 */
export interface GuestMemory {
  /** Fills `dst` from `gpa` on. */
  read(gpa: number, dst: Uint8Array): Promise<void> | void;
  /** Writes `src` to `gpa` on; the pages are dirty, and code that was decoded from them is dropped. */
  write(gpa: number, src: Uint8Array): Promise<void> | void;
  /** The little-endian 16-bit word at `gpa`, which is even. */
  load16(gpa: number): Promise<number> | number;
  store16(gpa: number, value: number): Promise<void> | void;
}
