#!/usr/bin/env node
/**
 * Draws a terminal as SVG: runs a command and shows it with what it printed, as docs/images was made.
 *
 *   node scripts/terminal-svg.mjs OUT.svg [--shown 'npx unpin …'] -- COMMAND [ARGS...]
 *
 * `--shown` is what stands behind the prompt in place of the command. Exit code: the command's.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const FONT = 13;
const LINE = 18;
const CHAR = 7.83;
const MARGIN = 16;
const BAR = 30;
const COLOURS = {
  text: '#d4d7dd',
  dim: '#7f8794',
  prompt: '#7fc98b',
  first: '#7db4e6',
  second: '#e6b97d',
  third: '#c79be6',
};

const separator = process.argv.indexOf('--');
const out = process.argv[2];
const command = process.argv.slice(separator + 1);
if (separator < 3 || command.length === 0) {
  process.stderr.write('usage: node scripts/terminal-svg.mjs OUT.svg [--shown TEXT] -- COMMAND [ARGS...]\n');
  process.exit(2);
}
const shownAt = process.argv.indexOf('--shown');
const shown = shownAt > 0 && shownAt < separator ? process.argv[shownAt + 1] : command.join(' ');

const escapeXml = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Parts of a line with their colours: a guest's name in its own, its kernel's messages dim. */
function parts(line) {
  const match = /^(\[guest(\d+)\] )(.*)$/.exec(line);
  if (match === null) return [[line, /^\s*[─\s]+$/.test(line) ? COLOURS.dim : COLOURS.text]];
  const name = [COLOURS.first, COLOURS.second, COLOURS.third][Number(match[2]) % 3];
  return [
    [match[1], name],
    [match[3], match[3].startsWith('[') ? COLOURS.dim : COLOURS.text],
  ];
}

function draw(lines) {
  const columns = Math.max(...lines.map((line) => line.reduce((sum, [text]) => sum + text.length, 0)));
  const width = Math.ceil(columns * CHAR + 2 * MARGIN);
  const height = BAR + lines.length * LINE + MARGIN;
  const rows = lines.map((line, i) => {
    const spans = line.map(([text, colour]) => `<tspan fill="${colour}">${escapeXml(text)}</tspan>`);
    return `<text x="${MARGIN}" y="${BAR + (i + 1) * LINE - 4}" xml:space="preserve">${spans.join('')}</text>`;
  });
  const dots = [0, 1, 2].map((i) => `<circle cx="${MARGIN + 4 + i * 18}" cy="15" r="5" fill="#4a5160"/>`);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`,
    `  font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="${FONT}">`,
    `<title>${escapeXml(shown)}</title>`,
    `<rect width="${width}" height="${height}" rx="8" fill="#1b1e24"/>`,
    ...dots,
    ...rows,
    '</svg>',
    '',
  ].join('\n');
}

const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
let text = '';
for (const stream of [child.stdout, child.stderr]) {
  stream.on('data', (chunk) => {
    text += chunk;
    process.stderr.write(chunk);
  });
}
child.on('close', (code) => {
  const printed = text.replaceAll('\r', '').trimEnd().split('\n');
  writeFileSync(
    out,
    draw([
      [
        ['$ ', COLOURS.prompt],
        [shown, COLOURS.text],
      ],
      [['', COLOURS.text]],
      ...printed.map(parts),
    ]),
  );
  process.exit(code ?? 1);
});
