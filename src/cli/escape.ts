/**
 * Tells keys for the guest from keys for us: Ctrl-a is an escape, as in QEMU and screen, and the key after it is a command. Ctrl-a twice
 * sends one.
 *
 * Use: `new EscapeKeys({ type, command })`, `feed` with what the terminal gives, however it is cut into pieces.
 */

export const ESCAPE = 0x01;

export interface EscapeTarget {
  /** Keys for the guest. */
  type(bytes: Uint8Array): void;
  /** The key after an escape. */
  command(key: string): void;
}

export class EscapeKeys {
  private readonly target: EscapeTarget;
  private escaped = false;

  constructor(target: EscapeTarget) {
    this.target = target;
  }

  feed(bytes: Uint8Array): void {
    let start = 0;
    for (let i = 0; i < bytes.length; i++) {
      if (this.escaped) {
        this.escaped = false;
        start = i + 1;
        this.after(bytes[i]!);
      } else if (bytes[i] === ESCAPE) {
        this.type(bytes.subarray(start, i));
        start = i + 1;
        this.escaped = true;
      }
    }
    this.type(bytes.subarray(start));
  }

  private after(byte: number): void {
    if (byte === ESCAPE) this.type(Uint8Array.of(byte));
    else this.target.command(String.fromCharCode(byte));
  }

  private type(bytes: Uint8Array): void {
    if (bytes.length > 0) this.target.type(bytes);
  }
}
