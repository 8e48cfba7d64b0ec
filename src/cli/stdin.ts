/**
 * What is typed goes to the guest's console. On a terminal keys go out as they are pressed, and the guest does the echo; Ctrl-C
 * alone is ours and counts as SIGINT, as everywhere else.
 *
 * Use: `connectStdin(give)`; the result takes the terminal back.
 */

const CTRL_C = 3;

export function connectStdin(give: (bytes: Uint8Array) => void): () => void {
  const { stdin } = process;
  const raw = stdin.isTTY === true;
  const onData = (bytes: Buffer) => {
    if (raw && bytes.includes(CTRL_C)) process.emit('SIGINT', 'SIGINT');
    else give(bytes);
  };
  // Input that cannot be read is a guest without a keyboard.
  const onError = () => {};
  if (raw) stdin.setRawMode(true);
  stdin.on('data', onData).on('error', onError);
  return () => {
    stdin.off('data', onData);
    if (raw) stdin.setRawMode(false);
    stdin.pause();
    if ('unref' in stdin) stdin.unref();
  };
}
