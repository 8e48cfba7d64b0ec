/** `alloc` of an engine whose arena is the first `lenBytes` of memory; address 0 stays unused. Nothing is freed. */
export function bumpAllocator(lenBytes: number): (lenBytes: number, align: number) => number {
  let free = 4096;
  return (wanted, align) => {
    const at = Math.ceil(free / align) * align;
    free = at + wanted;
    if (free > lenBytes) throw new RangeError(`the arena of ${lenBytes} bytes is full`);
    return at;
  };
}
