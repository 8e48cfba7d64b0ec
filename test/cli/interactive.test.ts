import fs from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { testFolder } from './command.js';
import { ECHO, ENDLESS, imageOf } from './kernels.js';
import { hasScript, inTerminal, onTerminal, type } from './pty.js';

/** `unpin boot` on a terminal: the guest's console, the escape key, the monitor, and the terminal afterwards. */

const folder = testFolder('interactive');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const echo = path.join(folder, 'echo.img');
fs.writeFileSync(echo, imageOf(ECHO));
const loop = path.join(folder, 'loop.img');
fs.writeFileSync(loop, imageOf(ENDLESS['a tight loop']!));
const SMPHOG = path.resolve('guests/images/smphog.img');
const ECHO_GUEST = `boot --ram 8M --kernel ${echo}`;
const LOOP_GUEST = `boot --ram 8M --kernel ${loop}`;
const PROMPT = /\(unpin\) /;

/** `info vcpus` of a guest: its instructions. */
const VCPU_LINE = /guest0\/0 +supervisor +0x[0-9a-f]+ +off +(\d+)/g;

describe.skipIf(!hasScript)('boot on a terminal', () => {
  test('all keys go to the guest, Ctrl-C too; Ctrl-a x ends the run', async () => {
    const command = onTerminal(ECHO_GUEST);
    await command.until(/Ctrl-a x ends the run/);
    type(command, 'a\x03b\x1a\x01\x01c');
    await command.until(/a.b..c/);
    expect(command.stdout).toContain('a\x03b\x1a\x01c');
    type(command, '\x01x');
    const { code, stdout } = await command.done;
    expect(stdout).toContain('unpin: guest0: killed: ended from the keyboard');
    expect(code).toBe(1);
  });

  test('an escape may come in two pieces; its help and an unknown key tell the keys', async () => {
    const command = onTerminal(ECHO_GUEST);
    await command.until(/ends the run/);
    type(command, '\x01');
    await new Promise((resolve) => setTimeout(resolve, 200));
    type(command, 'h');
    await command.until(/Ctrl-a Ctrl-a {2}a Ctrl-a for the guest/);
    type(command, 'still here');
    await command.until(/still here/);
    type(command, '\x01x');
    expect((await command.done).code).toBe(1);
  });

  test('the monitor tells memory, notifiers, guests and vCPUs, and refuses in one line', async () => {
    const command = onTerminal(ECHO_GUEST);
    await command.until(/ends the run/);
    type(command, '\x01c');
    await command.until(PROMPT);
    type(command, 'info mem\rinfo notifiers\rinfo guests\rinfo balloon\rinfo vcpus\r');
    await command.until(/instructions[\s\S]*\(unpin\) /);
    type(command, 'info idle\rinfo idle\r');
    await command.until(/guest0 +[\d.]+ [KM]iB +0 B[\s\S]*asked last[\s\S]*guest0 +\d+ [\w ]+ [\d.]+ [KM]iB\r/);
    type(command, 'foo\rinfo bar\rballoon 1M\rballoon 8M\rballoon x\rstop 7\r');
    await command.until(/guest '7' must be 0/);
    const { stdout } = command;
    expect(stdout).toMatch(/frames +16384 +64 MiB/);
    expect(stdout).toMatch(
      /invalidateRangeStart +\d+[\s\S]*subscribers: guest0 1\r\n +shootdowns \d+, retries \d+, refusals 0, poisoned 0/,
    );
    expect(stdout).toMatch(/guest0 +running +8 MiB +[\d.]+ [KM]iB +\d+ +0/);
    expect(stdout).toMatch(/guest0\/0 +supervisor +0x[0-9a-f]{16} +off +\d+/);
    expect(stdout).toContain('  guest0: no balloon\r\n');
    expect(stdout).toContain("guest0: no balloon: 'unpin boot' must be given --balloon\r\n");
    expect(stdout).toContain("'8M' must be less than the 8 MiB of RAM that guest0 has\r\n");
    expect(stdout).toContain("'x' must be a size such as 128M or 1G.\r\n");
    expect(stdout).toContain("'foo' must be one of help, info, stop, cont, balloon, console, quit\r\n");
    expect(stdout).toContain("info 'bar' must be one of mem, notifiers, guests, vcpus, balloon, idle\r\n");
    type(command, 'quit\r');
    expect((await command.done).code).toBe(1);
  });

  test('the monitor tells what a balloon has taken; a driver without statistics, and a stopped guest, tell none', async () => {
    const smphog = `--kernel ${SMPHOG} --append 'parts=0x400 rounds=100000'`;
    const command = onTerminal(`boot --ram 64M --balloon 8M ${smphog}`);
    await command.until(/ends the run/);
    type(command, '\x01c');
    await command.until(PROMPT);
    const given =
      /guest0: target 8 MiB, actual [\d.]+ \w+, inflated [\d.]+ [KMG]iB, reported [\d.]+ \w+\r\n +no statistics/;
    while (!given.test(command.stdout)) {
      const { length } = command.stdout;
      type(command, 'info balloon\r');
      await command.until(new RegExp(`^[\\s\\S]{${length}}[\\s\\S]*statistics[\\s\\S]*\\(unpin\\) `));
    }
    type(command, 'balloon 4M\r');
    await command.until(/guest0: asked for 4 MiB/);
    type(command, 'stop\r');
    await command.until(/guest0: stopped/);
    type(command, 'info balloon\r');
    await command.until(/stopped[\s\S]*guest0: target 4 MiB[\s\S]*no statistics/);
    type(command, '\x01x');
    expect((await command.done).code).toBe(1);
  });

  test('stop stops the vCPUs, cont lets them go on', async () => {
    const command = onTerminal(LOOP_GUEST);
    await command.until(/ends the run/);
    const ask = async () => {
      const seen = [...command.stdout.matchAll(VCPU_LINE)].length;
      type(command, 'info vcpus\r');
      await command.until(new RegExp(`(${VCPU_LINE.source}[\\s\\S]*){${seen + 1}}`));
      return Number([...command.stdout.matchAll(VCPU_LINE)].at(-1)![1]);
    };
    type(command, '\x01c');
    await command.until(PROMPT);
    type(command, 'stop\r');
    await command.until(/guest0: stopped/);
    const stopped = await ask();
    expect(await ask()).toBe(stopped);
    type(command, 'info guests\r');
    await command.until(/guest0 +paused/);
    type(command, 'cont\r');
    await command.until(/guest0: running/);
    expect(await ask()).toBeGreaterThan(stopped);
    type(command, '\x01x');
    expect((await command.done).code).toBe(1);
  });

  test('a stopped guest can be ended', async () => {
    const command = onTerminal(LOOP_GUEST);
    await command.until(/ends the run/);
    type(command, '\x01cstop\r');
    await command.until(/guest0: stopped/);
    type(command, 'quit\r');
    const { code, hung } = await command.done;
    expect([code, hung]).toEqual([1, false]);
  });

  test('what a guest writes while the monitor has the screen comes afterwards', async () => {
    const command = onTerminal('boot --ram 8M --append passes=1000');
    await command.until(/pass 1/);
    type(command, '\x01c');
    await command.until(PROMPT);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const held = command.stdout.slice(command.stdout.indexOf('(unpin) '));
    expect(held).not.toContain('pass');
    type(command, '\x01c');
    await command.until(/\(unpin\) [\s\S]*pass/);
    type(command, '\x01x');
    expect((await command.done).code).toBe(1);
  });

  test('of several guests one is chosen, and shown alone; another number is refused', async () => {
    const command = onTerminal(`${ECHO_GUEST} --guests 2`);
    await command.until(/ends the run/);
    type(command, 'lost');
    type(command, '\x011');
    await command.until(/guest1 has the keyboard/);
    type(command, 'one\n');
    await command.until(/one/);
    type(command, '\x010');
    await command.until(/guest0 has the keyboard/);
    type(command, 'zero\n');
    await command.until(/zero/);
    type(command, '\x01*');
    await command.until(/all guests/);
    type(command, '\x017');
    await command.until(/there is no guest 7: the last one is 1/);
    type(command, '\x03');
    const { code, stdout } = await command.done;
    expect(stdout).not.toContain('lost');
    expect(stdout).toContain('ended by SIGINT');
    expect(code).toBe(130);
  });
});

/** Ends of the process, told to a shell that has its id in $pid. */
const ENDS: Record<string, string> = {
  'power off': '',
  SIGTERM: 'kill -TERM $pid',
  'SIGTERM twice': 'kill -TERM $pid; kill -TERM $pid',
  SIGHUP: 'kill -HUP $pid',
  SIGABRT: 'kill -ABRT $pid',
  SIGKILL: 'kill -KILL $pid',
};

describe.skipIf(!hasScript)('the terminal is as it was', () => {
  test.each(Object.keys(ENDS))('after %s', async (name) => {
    const kernel = ENDS[name] === '' ? '' : `--kernel ${echo}`;
    // The settings while it runs, and after it; the guard of SIGKILL is another process, which may need a moment.
    // A shell gives what runs in the background /dev/null as file 0 before it redirects, so the terminal is kept as file 3.
    const shell = `
      before=$(stty -g)
      exec 3<&0
      "$NODE" "$MAIN" boot --ram 8M ${kernel} <&3 & pid=$!
      for try in $(seq 100); do [ "$(stty -g)" = "$before" ] || break; sleep 0.05; done
      [ "$(stty -g)" = "$before" ] || echo was-raw
      ${ENDS[name]}
      wait $pid
      for try in $(seq 100); do [ "$(stty -g)" = "$before" ] && echo as-before && break; sleep 0.05; done`;
    const { stdout } = await inTerminal(shell).done;
    expect(stdout).toContain('was-raw');
    expect(stdout).toContain('as-before');
  });

  test('after a bug', async () => {
    const bug = path.join(folder, 'bug.mjs');
    fs.writeFileSync(bug, `setInterval(() => { if (process.stdin.isRaw) throw new TypeError('a bug'); }, 100);`);
    const shell = `before=$(stty -g); "$NODE" --import ${bug} "$MAIN" ${ECHO_GUEST}; [ "$(stty -g)" = "$before" ] && echo as-before`;
    const { stdout } = await inTerminal(shell).done;
    expect(stdout).toContain('unpin: unexpected: a bug');
    expect(stdout).toContain('as-before');
  });
});
