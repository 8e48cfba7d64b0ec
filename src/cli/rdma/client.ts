import { formatSize } from '../args.js';
import { OutputFile } from '../files.js';
import { HostRun } from '../hostrun.js';
import { StopSignals } from '../stop.js';
import { type BenchReport, bench, benchText } from './bench.js';
import type { RdmaClientOptions } from './command.js';
import { type PingReport, ping } from './ping.js';
import { BUFFER_BYTES, connect, DEPTH, type Remote } from './remote.js';
import { arenaBytes, openRnic, type Rnic } from './service.js';
import { type VerifyReport, verify } from './verify.js';

/** `unpin rdma client`: one connection to a server, and what is done with it. */

const FRAMES_BYTES = 16 * 2 ** 20;
const SWAP_BYTES = 64 * 2 ** 20;

interface Report {
  readonly peer: string;
  readonly regionBytes: number;
  readonly ping?: PingReport;
  readonly bytesVerified?: number;
  readonly mismatches?: number;
  readonly verify?: VerifyReport;
  readonly bench?: BenchReport;
}

/** Resolves with the command's exit code: 1 where bytes were other than what was written. Throws KernelError. */
export async function rdmaClient(options: RdmaClientOptions): Promise<number> {
  const json = options.json === undefined ? undefined : new OutputFile('report', options.json);
  const signals = new StopSignals();
  signals.onStop(() => {
    json?.discard();
    process.exit(signals.exitCode);
  });
  let run: HostRun | undefined;
  let rnic: Rnic | undefined;
  try {
    run = await HostRun.open({
      ...{ frames: FRAMES_BYTES, swapSize: SWAP_BYTES, arenaBytes: arenaBytes(DEPTH * BUFFER_BYTES) },
      onSwapError: (message) => process.stderr.write(`unpin: ${message}\n`),
    });
    rnic = openRnic(run.host, 'client');
    const id = rnic.context.createId();
    const remote = await connect(rnic, id, options);
    const report = await work(remote, options);
    await id.disconnect();
    json?.write(`${JSON.stringify(report, null, 2)}\n`);
    return (report.mismatches ?? 0) === 0 ? 0 : 1;
  } catch (error) {
    json?.discard();
    throw error;
  } finally {
    await rnic?.device.close();
    await run?.close();
    signals.remove();
  }
}

async function work(remote: Remote, options: RdmaClientOptions): Promise<Report> {
  const { host, port, count, seconds } = options;
  process.stdout.write(`connected to ${host} port ${port}: ${formatSize(remote.served.length)} of memory\n`);
  const report: { -readonly [K in keyof Report]: Report[K] } = {
    ...{ peer: `${host} port ${port}`, regionBytes: remote.served.length },
  };
  if (count > 0) report.ping = await ping(remote, count);
  if (options.verify) {
    const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
    report.verify = await verify(remote, seed);
    Object.assign(report, { bytesVerified: report.verify.bytesVerified, mismatches: report.verify.mismatches });
  }
  if (options.bench) {
    report.bench = await bench(remote, seconds);
    process.stdout.write(benchText(report.bench));
  }
  return report;
}
