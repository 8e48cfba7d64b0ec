import { KernelError } from '../../../src/base/index.js';
import { type GuestMemory, RAM_BASE } from '../../../src/machine/index.js';

/**
 * A guest's RAM as one array, for devices under test. `absent` says of an access whether its page has to be waited for. Every access is
 * looked at: what is outside RAM is refused, and noted nowhere but in the refusal.
 */
export class FlatMemory implements GuestMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly end: number;
  absent: () => boolean = () => false;
  /** Accesses that wait, and how many bytes were written by the device. */
  waiting = 0;
  writtenBytes = 0;
  largestAccess = 0;

  constructor(lenBytes: number) {
    this.bytes = new Uint8Array(lenBytes);
    this.view = new DataView(this.bytes.buffer);
    this.end = RAM_BASE + lenBytes;
  }

  read(gpa: number, dst: Uint8Array): Promise<void> | void {
    return this.access(gpa, dst.length, (at) => dst.set(this.bytes.subarray(at, at + dst.length)));
  }

  write(gpa: number, src: Uint8Array): Promise<void> | void {
    return this.access(gpa, src.length, (at) => {
      this.bytes.set(src, at);
      this.writtenBytes += src.length;
    });
  }

  load16(gpa: number): Promise<number> | number {
    return this.access(gpa, 2, (at) => this.view.getUint16(at, true));
  }

  store16(gpa: number, value: number): Promise<void> | void {
    return this.access(gpa, 2, (at) => {
      this.view.setUint16(at, value, true);
      this.writtenBytes += 2;
    });
  }

  private access<T>(gpa: number, lenBytes: number, move: (at: number) => T): Promise<T> | T {
    this.largestAccess = Math.max(this.largestAccess, lenBytes);
    if (!(gpa >= RAM_BASE && gpa + lenBytes <= this.end))
      throw new KernelError('EFAULT', 'guestMemory', `guest-physical address 0x${gpa.toString(16)} must be in RAM`);
    return this.absent() ? this.later(() => move(gpa - RAM_BASE)) : move(gpa - RAM_BASE);
  }

  private async later<T>(move: () => T): Promise<T> {
    this.waiting++;
    await new Promise((resolve) => setImmediate(resolve));
    this.waiting--;
    return move();
  }
}
