/**
 * Line charts as SVG, for docs/results: axes with ticks, lines with a name at their ends or in a legend, nothing else.
 *
 * Use: `writeFileSync(path, chartPage([{ title, xLabel, yLabel, series }], 2))`.
 */

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** Drawn as dashes: what is only there to compare with. */
  readonly dashed?: boolean;
}

export interface Chart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xLog?: boolean;
  readonly yLog?: boolean;
  readonly series: readonly Series[];
}

const WIDTH = 460;
const HEIGHT = 320;
const LEFT = 62;
const RIGHT = 14;
const TOP = 34;
const BOTTOM = 46;
const LEGEND_LINE = 15;
const COLOURS = ['#1b6ca8', '#c8553d', '#2f8f5b', '#8a4fa3', '#b8860b', '#4a4a4a', '#d1478c', '#0a8a8a'];

/** From data to the place on one axis. */
interface Axis {
  at(value: number): number;
  readonly ticks: readonly number[];
}

/** All charts in one picture, `columns` beside each other. */
export function chartPage(charts: readonly Chart[], columns: number): string {
  const rows = Math.ceil(charts.length / columns);
  const height = HEIGHT + LEGEND_LINE * Math.max(...charts.map((c) => c.series.length));
  const parts = charts.map(
    (chart, i) =>
      `<g transform="translate(${(i % columns) * WIDTH},${Math.floor(i / columns) * height})">${drawChart(chart)}</g>`,
  );
  const size = `width="${columns * WIDTH}" height="${rows * height}"`;
  const style = 'text{font:12px sans-serif;fill:#222}.t{font-weight:bold;font-size:13px}.g{stroke:#ddd}';
  const title = `<title>${escapeXml(charts.map((chart) => chart.title).join('; '))}</title>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${title}<style>${style}</style><rect width="100%" height="100%" fill="#fff"/>\n${parts.join('\n')}\n</svg>\n`;
}

function drawChart(chart: Chart): string {
  const xs = chart.series.flatMap((s) => s.points.map(([x]) => x));
  const ys = chart.series.flatMap((s) => s.points.map(([, y]) => y));
  const x = axis(xs, LEFT, WIDTH - RIGHT, chart.xLog === true, false);
  const y = axis(ys, HEIGHT - BOTTOM, TOP, chart.yLog === true, true);
  return [
    text(LEFT, 18, chart.title, 'start', 't'),
    ...x.ticks.map((v) => grid(x.at(v), TOP, x.at(v), HEIGHT - BOTTOM)),
    ...x.ticks.map((v) => text(x.at(v), HEIGHT - BOTTOM + 15, short(v), 'middle')),
    ...y.ticks.map((v) => grid(LEFT, y.at(v), WIDTH - RIGHT, y.at(v))),
    ...y.ticks.map((v) => text(LEFT - 5, y.at(v) + 4, short(v), 'end')),
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, chart.xLabel, 'middle'),
    `<text transform="translate(13,${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${escapeXml(chart.yLabel)}</text>`,
    ...chart.series.map((s, i) => drawSeries(s, i, x, y)),
  ].join('\n');
}

function drawSeries(series: Series, i: number, x: Axis, y: Axis): string {
  const colour = COLOURS[i % COLOURS.length]!;
  const place = ([px, py]: readonly [number, number]) => `${x.at(px).toFixed(1)},${y.at(py).toFixed(1)}`;
  const stroke = `fill="none" stroke="${colour}" stroke-width="2"${series.dashed ? ' stroke-dasharray="5 4"' : ''}`;
  const dots = series.points.map((p) => {
    const [cx, cy] = place(p).split(',');
    return `<circle cx="${cx}" cy="${cy}" r="2.5" fill="${colour}"/>`;
  });
  const legendY = HEIGHT + i * LEGEND_LINE;
  return [
    `<polyline points="${series.points.map(place).join(' ')}" ${stroke}/>`,
    ...dots,
    `<line x1="${LEFT}" y1="${legendY - 4}" x2="${LEFT + 24}" y2="${legendY - 4}" ${stroke}/>`,
    text(LEFT + 30, legendY, series.name, 'start'),
  ].join('');
}

function axis(values: readonly number[], from: number, to: number, log: boolean, fromZero: boolean): Axis {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (log) {
    const [low, high] = [Math.log10(least), Math.log10(most)];
    const [first, last] = fromZero ? [Math.floor(low), Math.ceil(high)] : [low, high];
    const at = (v: number) => from + ((Math.log10(v) - first) / (last - first || 1)) * (to - from);
    const powers = Array.from({ length: 13 }, (_, k) => 10 ** (k - 3));
    return { at, ticks: powers.filter((v) => Math.log10(v) >= first - 1e-9 && Math.log10(v) <= last + 1e-9) };
  }
  const low = fromZero ? 0 : least;
  const step = niceStep((most - low || 1) / 5);
  const high = fromZero ? Math.ceil(most / step) * step : most;
  const at = (v: number) => from + ((v - low) / (high - low || 1)) * (to - from);
  const ticks: number[] = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step / 1000; v += step) ticks.push(v);
  return { at, ticks };
}

/** 1, 2 or 5 times a power of ten, at least `least`. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= least)!;
}

function short(value: number): string {
  const units: [number, string][] = [
    [1e6, 'M'],
    [1e3, 'k'],
  ];
  for (const [unit, letter] of units) if (value >= unit) return `${Number((value / unit).toPrecision(3))}${letter}`;
  return `${Number(value.toPrecision(3))}`;
}

function text(x: number, y: number, what: string, anchor: string, kind = ''): string {
  const style = kind === '' ? '' : ` class="${kind}"`;
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}"${style}>${escapeXml(what)}</text>`;
}

function grid(x1: number, y1: number, x2: number, y2: number): string {
  return `<line class="g" x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}"/>`;
}

function escapeXml(what: string): string {
  return what.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
