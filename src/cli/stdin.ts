/**
 * What a guest reads where stdin is no terminal: all of it, as it comes.
 *
 * Use: `connectStdin(give)`; the result takes it back.
 */
export function connectStdin(give: (bytes: Uint8Array) => void): () => void {
  const { stdin } = process;
  // Input that cannot be read is a guest without a keyboard.
  const onError = () => {};
  stdin.on('data', give).on('error', onError);
  return () => {
    stdin.off('data', give);
    stdin.pause();
    if ('unref' in stdin) stdin.unref();
  };
}
