import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as lguest from '../../src/lguest/index.js';

/** The guest's header says what the host's does. */

const header = readFileSync(new URL('../../guests/lguest/lguest.h', import.meta.url), 'utf8');
const host: Readonly<Record<string, unknown>> = lguest;
/** The header names the fields of the frame for assembler. */
const FRAME = Object.entries(lguest.LGUEST_FRAME).map(([name, at]) => [`LGUEST_FRAME_${name.toUpperCase()}`, at]);

function defines(): Map<string, number> {
  const found = header.matchAll(/^#define (\w+) (0x[0-9a-f]+|\d+|\(1 << \d+\))$/gm);
  return new Map([...found].map(([, name, value]) => [name!, number(value!)]));
}

function number(text: string): number {
  const shift = /1 << (\d+)/.exec(text);
  return shift === null ? Number(text) : 1 << Number(shift[1]);
}

const SIZES: Readonly<Record<string, number>> = {
  char: 1,
  int: 4,
  long: 8,
  lguest_hcall_args: lguest.LGUEST_HCALL_BYTES,
};

/** Offsets of the fields of a struct in the header, under their names in camelCase. */
function offsets(struct: string): Map<string, number> {
  const body = new RegExp(`struct ${struct} \\{([^}]*)\\}`).exec(header)![1]!.replaceAll(/\/\*.*?\*\//g, '');
  const result = new Map<string, number>();
  let at = 0;
  for (const [, type, names] of body.matchAll(/(\w+) (\w+(?:\[\w+\])?(?:, \w+(?:\[\w+\])?)*);/g)) {
    for (const name of names!.split(', ')) {
      const [, field, length] = /(\w+)(?:\[(\w+)\])?/.exec(name)!;
      result.set(
        field!.replaceAll(/_([a-z])/g, (_, letter) => letter.toUpperCase()),
        at,
      );
      at += SIZES[type!]! * (length === undefined ? 1 : (defines().get(length) ?? Number(length)));
    }
  }
  return result;
}

test('constants are the same', () => {
  const found = defines();
  const wanted = new Map(Object.entries(host).filter(([name]) => found.has(name) && !name.startsWith('LGUEST_FRAME_')));
  expect(
    [...found].filter(([name]) => !FRAME.some(([field]) => field === name) && name !== 'LGUEST_FRAME_BYTES'),
  ).toEqual([...found.keys()].filter((name) => wanted.has(name)).map((name) => [name, wanted.get(name)]));
  for (const [name, at] of FRAME) expect([name, found.get(name as string)]).toEqual([name, at]);
  expect(found.get('LGUEST_FRAME_BYTES')).toBe(lguest.LGUEST_FRAME_BYTES);
  const calls = Object.keys(host).filter((name) => name.startsWith('LHCALL_'));
  expect(calls.filter((name) => !found.has(name))).toEqual([]);
});

test('structs are the same', () => {
  const data = offsets('lguest_data');
  for (const [field, at] of Object.entries(lguest.LGUEST_DATA)) expect([field, data.get(field)]).toEqual([field, at]);
  const frame = offsets('lguest_trap_frame');
  for (const [field, at] of Object.entries(lguest.LGUEST_FRAME)) expect([field, frame.get(field)]).toEqual([field, at]);
  expect(offsets('lguest_hcall_args').get('arg4')).toBe(lguest.LGUEST_HCALL_BYTES - 8);
});
