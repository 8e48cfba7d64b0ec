import { StringDecoder } from 'node:string_decoder';

/**
 * Guests' consoles on one output. A single guest's bytes go out as they come; with several, whole lines, each with its
 * guest's name before it, so that they never mix.
 */
export class ConsoleMux {
  private readonly write: (text: string) => void;
  private readonly prefix: boolean;
  private readonly partial = new Map<string, string>();
  private readonly decoders = new Map<string, StringDecoder>();

  constructor(write: (text: string) => void, nrGuests: number) {
    this.write = write;
    this.prefix = nrGuests > 1;
  }

  put(guest: string, bytes: Uint8Array): void {
    const text = this.decode(guest, bytes);
    if (!this.prefix) {
      this.write(text);
      return;
    }
    const lines = ((this.partial.get(guest) ?? '') + text).split('\n');
    this.partial.set(guest, lines.pop()!);
    for (const line of lines) this.write(`[${guest}] ${line}\n`);
  }

  private decode(guest: string, bytes: Uint8Array): string {
    let decoder = this.decoders.get(guest);
    if (decoder === undefined) this.decoders.set(guest, (decoder = new StringDecoder('utf8')));
    return decoder.write(bytes);
  }

  /** Writes what is left of unfinished lines. */
  flush(): void {
    for (const [guest, rest] of this.partial) {
      if (rest !== '') this.write(`[${guest}] ${rest}\n`);
    }
    this.partial.clear();
  }
}
