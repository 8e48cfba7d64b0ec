/** What of `views` lies after the first `lenBytes` bytes. */
export function after(views: readonly Uint8Array[], lenBytes: number): Uint8Array[] {
  let i = 0;
  while (i < views.length && lenBytes >= views[i]!.length) lenBytes -= views[i++]!.length;
  const rest = views.slice(i);
  if (lenBytes > 0) rest[0] = rest[0]!.subarray(lenBytes);
  return rest;
}
