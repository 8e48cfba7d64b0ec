import { Host } from 'unpin';
import { MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE } from 'unpin/mm';
import { nodeRdmaEnvironment, openFileSwap } from 'unpin/node';
import {
  type CmId,
  type Context,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_ATOMIC,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  openDevice,
  RDMA_CM_EVENT_CONNECT_REQUEST,
} from 'unpin/rdma';

const RIGHTS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

/** The server of the table: it registers memory, tells who connects where it is, and does nothing else. */
export class KvServer {
  readonly host: Host;
  readonly port: number;
  private readonly context: Context;

  private constructor(host: Host, port: number, context: Context) {
    this.host = host;
    this.port = port;
    this.context = context;
  }

  /** A table of `tableBytes` in `hostBytes` of memory; what does not fit goes to the file `swapPath`. */
  static async start(tableBytes: number, hostBytes: number, swapPath: string): Promise<KvServer> {
    const swap = await openFileSwap(swapPath, { sizeBytes: 2 * tableBytes, unlinked: true });
    const host = new Host({ frames: hostBytes / 4096, swap, defer: (fn) => setImmediate(fn) });
    const mm = host.createMm();
    const addr = mm.mmap(0, tableBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    const context = openDevice(host, nodeRdmaEnvironment()).openContext(mm);
    const pd = context.allocPd();
    const { rkey } = await pd.regMr(addr, tableBytes, RIGHTS | IBV_ACCESS_ON_DEMAND);
    const listener = context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    const privateData = new TextEncoder().encode(JSON.stringify({ addr, length: tableBytes, rkey }));
    const accept = async (id: CmId): Promise<void> => {
      const cq = context.createCq(16);
      id.createQp(pd, { sendCq: cq, recvCq: cq });
      await id.accept({ privateData });
    };
    void (async () => {
      for await (const { event, id } of listener.events) if (event === RDMA_CM_EVENT_CONNECT_REQUEST) await accept(id);
    })();
    return new KvServer(host, listener.localAddr!.port, context);
  }

  /** What the memory went through. */
  summary(): string {
    const { framesPeak, frames, swapOutPages, swapInPages } = this.host.stats();
    const { minorFaults, majorFaults, pinnedPages } = this.context.device.stats();
    return (
      `at most ${framesPeak} of ${frames} frames; ${minorFaults} minor and ${majorFaults} major faults of the network; ` +
      `${swapOutPages} pages went to the file, ${swapInPages} came back, ${pinnedPages} were pinned`
    );
  }

  async close(): Promise<void> {
    await this.context.device.close();
    await this.host.stop();
  }
}
