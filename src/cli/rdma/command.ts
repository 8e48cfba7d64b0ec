import { Command, Option } from 'commander';
import { parseCount } from '../args.js';
import { GIB, MIB, size } from '../guestoptions.js';
import { rdmaClient } from './client.js';
import { rdmaServer } from './server.js';

/** `unpin rdma`: memory that a network card serves, although the host may take it away at any time. */

export interface RdmaServerOptions {
  host: string;
  port: number;
  region: number;
  frames: number;
  swap?: string;
  swapSize: number;
  pin: boolean;
  memlock: number;
  once: boolean;
  crc: boolean;
  json?: string;
}

export interface RdmaClientOptions {
  host: string;
  port: number;
  count: number;
  verify: boolean;
  bench: boolean;
  seconds: number;
  seed?: number;
  crc: boolean;
  json?: string;
}

/** As rping's. */
const DEFAULT_PORT = '7174';
const NO_CRC = "without MPA's CRC, where the other side says so too: TCP's checksum alone guards";
const LEAST_FRAMES = 2 * MIB;

export function rdmaCommand(): Command {
  return new Command('rdma')
    .description('a software RNIC (iWARP) whose registered memory is demand paged')
    .addCommand(serverCommand())
    .addCommand(clientCommand());
}

function serverCommand(): Command {
  return new Command('server')
    .description('let peers read and write a region of memory')
    .option('--host <addr>', 'address to listen at; who connects gets the key of the region', '127.0.0.1')
    .addOption(number('--port <port>', 'port to listen at; 0: any that is free', DEFAULT_PORT, 0, 65535))
    .addOption(size('--region <size>', 'memory that is served', '256M', 4096, 16 * GIB))
    .addOption(size('--frames <size>', 'host memory', '64M', LEAST_FRAMES, 3 * GIB))
    .option('--swap <file>', 'swap file: new or empty, removed at the end (default: a temporary file)')
    .addOption(size('--swap-size <size>', 'size of the swap file', '1G', MIB, 64 * GIB))
    .option(
      '--pin',
      'pin the region, as without on-demand paging (ENOMEM unless --memlock allows it, and it fits)',
      false,
    )
    .addOption(size('--memlock <size>', "how much may be pinned; 64K is Linux's for a user", '64K', 0, 64 * GIB))
    .option('--no-crc', NO_CRC)
    .option('--once', 'end when the first peer has gone', false)
    .option('--json <file>', 'write the report as JSON')
    .action(async (options: RdmaServerOptions) => {
      process.exitCode = await rdmaServer(options);
    });
}

function clientCommand(): Command {
  return new Command('client')
    .description('connect to a server: ping, and what else is asked for')
    .option('--host <addr>', 'name or address of the server', '127.0.0.1')
    .addOption(number('--port <port>', "the server's port", DEFAULT_PORT, 1, 65535))
    .addOption(number('--count <n>', 'pings', '10', 0, 1_000_000))
    .option('--verify', 'write all of the region in random pieces, read it back in others, and compare', false)
    .option('--no-crc', NO_CRC)
    .option('--bench', 'latency and bandwidth', false)
    .addOption(number('--seconds <s>', 'how long each bandwidth is measured', '2', 1, 600))
    .addOption(
      new Option('--seed <n>', 'of the pieces and contents of --verify (default: another one each time)').argParser(
        parseCount(0, 2 ** 31),
      ),
    )
    .option('--json <file>', 'write the report as JSON')
    .action(async (options: RdmaClientOptions) => {
      process.exitCode = await rdmaClient(options);
    });
}

function number(flags: string, what: string, value: string, min: number, max: number): Option {
  return new Option(flags, what).argParser(parseCount(min, max)).default(Number(value), value);
}
