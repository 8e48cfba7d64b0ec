import { describe, expect, test } from 'vitest';
import { hasScript, onTerminal, type } from './pty.js';

/** What is shown on a terminal, and Ctrl-C there. */

describe.skipIf(!hasScript)('on a terminal', () => {
  test('a progress line is there while several guests run, and gone before a console line', async () => {
    const command = onTerminal('boot --guests 2 --ram 8M --frames 6M');
    const { code, stdout } = await command.done;
    expect(code).toBe(0);
    const shown = stdout.replaceAll('\x1b', 'ESC');
    expect(shown).toMatch(/\rESC\[K {2}█+░* [\d.]+ MiB of 6 MiB frames · out \d+ · in \d+ · pinned 0/);
    for (const at of shown.matchAll(/\[guest\d\] memhog/g)) expect(shown.slice(0, at.index)).toMatch(/(^|\n|ESC\[K)$/);
  });

  test('Ctrl-C on a single guest ends the run; other keys go to the guest', async () => {
    const command = onTerminal('boot --ram 8M --append passes=1000');
    await command.until(/pass 1/);
    type(command, 'x\r\n');
    type(command, '\x03');
    const { code, stdout } = await command.done;
    expect(stdout).toContain('unpin: guest0: killed: ended by SIGINT');
    expect(code).toBe(130);
  });

  test('Ctrl-C in the middle of `start` gives the cursor back', async () => {
    const command = onTerminal('start');
    await command.until(/user 1.*\d+ %/);
    type(command, '\x03');
    const { code, stdout } = await command.done;
    expect(stdout).toContain('\x1b[?25l');
    expect(stdout.lastIndexOf('\x1b[?25h')).toBeGreaterThan(stdout.lastIndexOf('\x1b[?25l'));
    expect(code).toBe(130);
  });
});
