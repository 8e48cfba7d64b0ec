/** What CRC32C and the framing of the RDMA wire cost, in memory: `npm run bench -- rdmawire [--rounds 7]`. */

import { digits, markdownTable, option } from './lib/common.js';
import { measureWire } from './rdma/wire.js';

const rows = measureWire(Number(option('rounds', '7'))).map(({ name, rate }) => [name, digits(rate / 1e6)]);
console.log(markdownTable(['', 'MB/s of processor time'], rows));
