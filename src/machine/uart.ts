import type { Device } from './mmio.js';

/**
 * An ns16550a UART with byte-wide registers: the console. What is sent goes to the sink at once, so the transmitter is
 * always empty; what is received waits in a queue, of which the guest sees a 16-byte FIFO's behaviour.
 *
 * The interrupt line is a level, reported to `setIrq` whenever it changes: received data (IER bit 0), transmitter empty
 * (IER bit 1; the condition arises with a write to THR or with its enabling, and goes when IIR reports it). Nothing
 * raises a line or modem status interrupt, so IER's bits 2 and 3 are kept and have no effect.
 *
 * Source: the National Semiconductor PC16550D data sheet. Use: `receive(bytes)` for what is typed.
 */

const REG_DATA = 0; // RBR on read, THR on write, divisor's low byte under DLAB
const REG_IER = 1; // divisor's high byte under DLAB
const REG_IIR = 2; // FCR on write
const REG_LCR = 3;
const REG_MCR = 4;
const REG_LSR = 5;
const REG_MSR = 6;
const REG_SCR = 7;

export const IER_RDI = 0x01;
export const IER_THRI = 0x02;
export const IIR_NO_INT = 0x01;
export const IIR_THRI = 0x02;
export const IIR_RDI = 0x04;
const IIR_FIFO_ENABLED = 0xc0;
const FCR_ENABLE_FIFO = 0x01;
const FCR_CLEAR_RCVR = 0x02;
const LCR_DLAB = 0x80;
const MCR_LOOP = 0x10;
export const LSR_DR = 0x01;
export const LSR_THRE = 0x20;
export const LSR_TEMT = 0x40;
/** Carrier, data set ready, clear to send. */
const MSR_CONNECTED = 0xb0;

export interface UartOptions {
  /** Bytes the guest sends; the array is the sink's to keep. */
  sink: (bytes: Uint8Array) => void;
  /** The level of the interrupt line, called when it changes. */
  setIrq: (on: boolean) => void;
}

export class Uart implements Device {
  readonly name = 'ns16550a';
  private readonly options: UartOptions;
  private queue: number[] = [];
  private ier = 0;
  private fcr = 0;
  private lcr = 0;
  private mcr = 0;
  private scr = 0;
  private divisor = 0;
  private threPending = false;
  private irq = false;

  constructor(options: UartOptions) {
    this.options = options;
  }

  /** Queues bytes for the guest to read. */
  receive(bytes: Uint8Array): void {
    for (const byte of bytes) this.queue.push(byte);
    this.update();
  }

  /** The next received byte, or -1: for SBI's console, which reads from the same queue. */
  takeReceived(): number {
    const byte = this.queue.shift() ?? -1;
    this.update();
    return byte;
  }

  read(offset: number, _lenBytes: number): number {
    switch (offset) {
      case REG_DATA:
        return this.dlab ? this.divisor & 0xff : Math.max(this.takeReceived(), 0);
      case REG_IER:
        return this.dlab ? this.divisor >>> 8 : this.ier;
      case REG_IIR:
        return this.readIir();
      case REG_LCR:
        return this.lcr;
      case REG_MCR:
        return this.mcr;
      case REG_LSR:
        return LSR_THRE | LSR_TEMT | (this.queue.length > 0 ? LSR_DR : 0);
      case REG_MSR:
        return this.readMsr();
      case REG_SCR:
        return this.scr;
      default:
        return 0;
    }
  }

  write(offset: number, _lenBytes: number, value: number): void {
    value &= 0xff;
    switch (offset) {
      case REG_DATA:
        if (this.dlab) this.divisor = (this.divisor & 0xff00) | value;
        else this.transmit(value);
        return;
      case REG_IER:
        if (this.dlab) this.divisor = (this.divisor & 0xff) | (value << 8);
        else this.writeIer(value);
        return;
      case REG_IIR:
        this.writeFcr(value);
        return;
      case REG_LCR:
        this.lcr = value;
        return;
      case REG_MCR:
        this.mcr = value & 0x1f;
        return;
      case REG_SCR:
        this.scr = value;
    }
  }

  private get dlab(): boolean {
    return (this.lcr & LCR_DLAB) !== 0;
  }

  private transmit(byte: number): void {
    if ((this.mcr & MCR_LOOP) !== 0) this.queue.push(byte);
    else this.options.sink(Uint8Array.of(byte));
    this.threPending = true;
    this.update();
  }

  private writeIer(value: number): void {
    if ((value & IER_THRI) !== 0 && (this.ier & IER_THRI) === 0) this.threPending = true;
    this.ier = value & 0x0f;
    this.update();
  }

  private writeFcr(value: number): void {
    if ((value & FCR_CLEAR_RCVR) !== 0) this.queue = [];
    this.fcr = value;
    this.update();
  }

  /** Received data comes before an empty transmitter; reporting the latter clears it. */
  private readIir(): number {
    const cause = this.cause();
    if (cause === IIR_THRI) {
      this.threPending = false;
      this.update();
    }
    return cause | ((this.fcr & FCR_ENABLE_FIFO) !== 0 ? IIR_FIFO_ENABLED : 0);
  }

  /** In loopback the modem's inputs are its outputs, which is how Linux recognises the chip. */
  private readMsr(): number {
    if ((this.mcr & MCR_LOOP) === 0) return MSR_CONNECTED;
    const { mcr } = this;
    return ((mcr & 0x02) << 3) | ((mcr & 0x01) << 5) | ((mcr & 0x0c) << 4);
  }

  private cause(): number {
    if ((this.ier & IER_RDI) !== 0 && this.queue.length > 0) return IIR_RDI;
    if ((this.ier & IER_THRI) !== 0 && this.threPending) return IIR_THRI;
    return IIR_NO_INT;
  }

  private update(): void {
    const irq = this.cause() !== IIR_NO_INT;
    if (irq === this.irq) return;
    this.irq = irq;
    this.options.setIrq(irq);
  }
}
