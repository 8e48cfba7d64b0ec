import {
  QN_SEND,
  TERM_DDP_INVALID_QN,
  TERM_DDP_TAGGED_VERSION,
  TERM_DDP_UNTAGGED_VERSION,
  TERM_MPA_CRC,
  TERM_MPA_FRAMING,
  TERM_RDMAP_OPCODE,
  TERM_RDMAP_VERSION,
} from './codes.js';
import { ControlReceiver } from './control.js';
import type { StreamCore } from './core.js';
import { DdpHeader, QUEUE_OF, TAGGED_MESSAGE, UNKNOWN_MESSAGE } from './ddp.js';
import type { SegmentSink } from './fpdu.js';
import { SendReceiver } from './sends.js';
import { TaggedReceiver } from './tagged.js';

/** Who takes the segments of one kind of message; results as of SegmentSink, `begin` with 0 where all is well. */
export interface MessageReceiver {
  begin(header: DdpHeader, payloadBytes: number): number;
  payload(bytes: Uint8Array, start: number, end: number): number;
  finish(): number;
}

/** The receiving half of a stream: looks at the header of each segment, and hands it to those who take such messages. */
export class SegmentReceiver implements SegmentSink {
  private readonly core: StreamCore;
  private readonly header = new DdpHeader();
  private readonly tagged: MessageReceiver;
  private readonly sends: MessageReceiver;
  private readonly control: MessageReceiver;
  private receiver: MessageReceiver;

  constructor(core: StreamCore) {
    this.core = core;
    this.tagged = new TaggedReceiver(core);
    this.sends = new SendReceiver(core);
    this.control = new ControlReceiver(core);
    this.receiver = this.tagged;
  }

  begin(bytes: Uint8Array, at: number, segmentBytes: number): number {
    const { core, header } = this;
    core.maySend = true;
    header.parse(bytes, at);
    core.quote.setHeader(bytes, at, header.headerBytes, segmentBytes);
    const wrong = this.check();
    if (wrong < 0) return wrong;
    const result = this.receiver.begin(header, segmentBytes - header.headerBytes);
    return result < 0 ? result : header.headerBytes;
  }

  /** Versions, opcode and queue; sets `receiver`. */
  private check(): number {
    const { core, header } = this;
    if (header.ddpVersion !== 1)
      return core.fail(
        header.tagged ? TERM_DDP_TAGGED_VERSION : TERM_DDP_UNTAGGED_VERSION,
        `${header.ddpVersion}, not 1`,
      );
    if (header.rdmapVersion !== 1) return core.fail(TERM_RDMAP_VERSION, `${header.rdmapVersion}, not 1`);
    const queue = QUEUE_OF[header.opcode];
    if (queue === UNKNOWN_MESSAGE || header.tagged !== (queue === TAGGED_MESSAGE))
      return core.fail(TERM_RDMAP_OPCODE, `${header.opcode} in ${header.tagged ? 'a tagged' : 'an untagged'} segment`);
    if (!header.tagged && header.qn !== queue)
      return core.fail(TERM_DDP_INVALID_QN, `${header.qn}, not ${queue}, for opcode ${header.opcode}`);
    this.receiver = header.tagged ? this.tagged : queue === QN_SEND ? this.sends : this.control;
    return 0;
  }

  payload(bytes: Uint8Array, start: number, end: number): number {
    return this.receiver.payload(bytes, start, end);
  }

  finish(): number {
    return this.receiver.finish();
  }

  badCrc(): void {
    this.core.quote.clear();
    this.core.fail(TERM_MPA_CRC, '');
  }

  badLength(): void {
    this.core.quote.clear();
    this.core.fail(TERM_MPA_FRAMING, 'an FPDU too short for its header');
  }
}
