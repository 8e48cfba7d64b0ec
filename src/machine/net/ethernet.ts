/**
 * Ethernet: what a network card plugs into, and a segment that joins several cards.
 *
 * Frames are without preamble and check sequence. Whoever is handed a frame has it for the length of the call only, and copies what
 * it keeps. Neither end ever throws into the other.
 *
 * Use: `port.attach(receive)` by the card, then `port.transmit(frame)` for each frame that it sends; `close` at its end.
 */

export const ETH_HEADER_BYTES = 14;
/** Header and 1500 bytes: the longest frame without a tag. */
export const ETH_FRAME_BYTES = 1514;
export const ETH_MTU = 1500;
export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;

export type FrameSink = (frame: Uint8Array) => void;

/** The network's side of a link to one card. */
export interface EthernetPort {
  /** Sets who takes the frames that come from the network. */
  attach(receive: FrameSink): void;
  /** A frame of the card. Never throws, whatever it holds. */
  transmit(frame: Uint8Array): void;
  /** The card is gone: nothing is delivered any more, and what was kept for it is given up. */
  close(): void;
}

/**
 * A segment as a hub makes it: what one port sends, every other one gets. Frames that no Ethernet carries (shorter than a header, or
 * longer than the MTU allows) are dropped.
 */
export class EthernetSegment {
  private readonly ports = new Set<SegmentPort>();

  port(): EthernetPort {
    const port = new SegmentPort(this.ports);
    this.ports.add(port);
    return port;
  }
}

class SegmentPort implements EthernetPort {
  private readonly ports: Set<SegmentPort>;
  private receive: FrameSink | undefined;

  constructor(ports: Set<SegmentPort>) {
    this.ports = ports;
  }

  attach(receive: FrameSink): void {
    this.receive = receive;
  }

  transmit(frame: Uint8Array): void {
    if (frame.length < ETH_HEADER_BYTES || frame.length > ETH_FRAME_BYTES || !this.ports.has(this)) return;
    for (const port of this.ports) if (port !== this) port.receive?.(frame);
  }

  close(): void {
    this.ports.delete(this);
    this.receive = undefined;
  }
}

const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i;

/** The six bytes of `52:54:00:12:34:56`. */
export function macAddress(text: string): Uint8Array {
  if (!MAC.test(text)) throw new TypeError(`'${text}' must be a MAC address such as 52:54:00:12:34:56`);
  return Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
}
