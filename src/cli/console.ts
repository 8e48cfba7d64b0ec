import { StringDecoder } from 'node:string_decoder';

/**
 * Guests' consoles on one output. A single guest's bytes go out as they come. With several it is whole lines, each with its
 * guest's name before it, so that they never mix; or, with `show(i)`, one guest's bytes as they come, and nothing of the others.
 *
 * Use: `put` for what a guest writes, `show` and `hold` for who watches, `flush` at the end.
 */

/** What a console shows of the past when it is chosen. */
const RECENT_CHARS = 4096;
/** What is kept while the output is held; of more, the latest. */
const HELD_CHARS = 256 * 1024;

export class ConsoleMux {
  private readonly write: (text: string) => void;
  private readonly consoles: { partial: string; recent: string; decoder: StringDecoder }[];
  private readonly names: readonly string[];
  private shown: number | undefined;
  private held: string | undefined;

  constructor(write: (text: string) => void, names: readonly string[]) {
    this.write = write;
    this.names = names;
    this.consoles = names.map(() => ({ partial: '', recent: '', decoder: new StringDecoder('utf8') }));
    this.shown = names.length === 1 ? 0 : undefined;
  }

  /** What guest `i` writes. */
  put(i: number, bytes: Uint8Array): void {
    const console = this.consoles[i]!;
    const text = console.decoder.write(bytes);
    console.recent = latest(console.recent + text, RECENT_CHARS);
    if (this.shown === undefined) this.putLines(i, text);
    else if (this.shown === i) this.out(text);
  }

  private putLines(i: number, text: string): void {
    const console = this.consoles[i]!;
    const lines = (console.partial + text).split('\n');
    console.partial = lines.pop()!;
    for (const line of lines) this.out(`[${this.names[i]}] ${line}\n`);
  }

  private out(text: string): void {
    if (this.held === undefined) this.write(text);
    else this.held = latest(this.held + text, HELD_CHARS);
  }

  /** Shows guest `i` alone, with the last of what it wrote before; or, undefined, the lines of all. */
  show(i: number | undefined): void {
    if (this.consoles.length === 1 || i === this.shown) return;
    this.flush();
    this.shown = i;
    if (i !== undefined) this.out(this.consoles[i]!.recent.slice(-RECENT_CHARS));
  }

  /** The guest whose console is shown alone. */
  get showing(): number | undefined {
    return this.shown;
  }

  /** Keeps what comes, until `release`: something else has the screen. */
  hold(): void {
    this.held ??= '';
  }

  get isHeld(): boolean {
    return this.held !== undefined;
  }

  release(): void {
    const { held } = this;
    this.held = undefined;
    if (held) this.write(held);
  }

  /** Writes what is left of unfinished lines. */
  flush(): void {
    this.consoles.forEach((console, i) => {
      if (console.partial !== '') this.out(`[${this.names[i]}] ${console.partial}\n`);
      console.partial = '';
    });
  }
}

/** At least the last `nrChars` of a text. WHY: a console gives single characters, and cutting at each copies all of it. */
function latest(text: string, nrChars: number): string {
  return text.length > 2 * nrChars ? text.slice(-nrChars) : text;
}
