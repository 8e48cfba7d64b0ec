import { InvalidArgumentError } from 'commander';
import { nodeRdmaEnvironment } from '../node/index.js';
import { type BoardGuestOptions, GuestRnic } from '../vmm/index.js';
import { decodeRegion } from './rdma/service.js';

/** `--rdma`: a NIC for each guest. */

export interface RdmaOption {
  readonly host: string;
  readonly port: number;
}

/** `7174`, `127.0.0.1:7174`. */
export function parseRdma(text: string): RdmaOption {
  const match = /^(?:(.+):)?(\d+)$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65535)
    throw new InvalidArgumentError(`'${text}' must be a port from 1 to 65535, or HOST:PORT.`);
  return { host: match[1] ?? '127.0.0.1', port };
}

/** How a guest gets its NIC. A guest closes its own when it ends; `close` is for where not all guests could be made. */
export class Rnics {
  private readonly option: RdmaOption | undefined;
  private readonly nrGuests: number;
  private readonly made: GuestRnic[] = [];

  constructor(option: RdmaOption | undefined, nrGuests: number) {
    this.option = option;
    this.nrGuests = nrGuests;
  }

  /** Each guest has a part of the server's memory for itself. */
  forGuest(index: number): Pick<BoardGuestOptions, 'rnic'> {
    const { option, made, nrGuests } = this;
    const decode = (privateData: Uint8Array) => {
      const { addr, length, rkey } = decodeRegion(privateData);
      const part = Math.floor(length / nrGuests / 4096) * 4096;
      return { addr: addr + index * part, length: part, rkey };
    };
    if (option === undefined) return {};
    const connect: NonNullable<BoardGuestOptions['rnic']> = async (ram) => {
      const rnic = await GuestRnic.connect(nodeRdmaEnvironment(), ram, { ...option, decode });
      made.push(rnic);
      return rnic;
    };
    return { rnic: connect };
  }

  async close(): Promise<void> {
    for (const rnic of this.made) await rnic.close();
  }
}
