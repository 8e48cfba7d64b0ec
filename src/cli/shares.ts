import { InvalidArgumentError } from 'commander';
import { type FileSystemBackend, VirtioFs } from '../machine/index.js';
import { openFolder } from '../node/index.js';

/** The folders of `unpin boot --share DIR[,tag][,ro]`: opened before anything runs; each guest sees all of them. */

export interface ShareOption {
  readonly path: string;
  readonly tag: string;
  readonly readOnly: boolean;
}

const MAX_TAG_BYTES = 36;

/** For commander: appends what `text` says to the folders before it. */
export function parseShare(text: string, before: readonly ShareOption[] = []): ShareOption[] {
  const [path, ...words] = text.split(',');
  const readOnly = words.at(-1) === 'ro';
  if (readOnly) words.pop();
  const tag = words[0] ?? (before.length === 0 ? 'share' : `share${before.length}`);
  if (path === '' || words.length > 1 || tag === '')
    throw new InvalidArgumentError(`'${text}' must be DIR, DIR,TAG, DIR,ro or DIR,TAG,ro.`);
  if (Buffer.byteLength(tag) > MAX_TAG_BYTES)
    throw new InvalidArgumentError(`tag '${tag}' must have at most ${MAX_TAG_BYTES} bytes.`);
  if (before.some((other) => other.tag === tag))
    throw new InvalidArgumentError(`tag '${tag}' must be another: a folder has it already.`);
  return [...before, { path: path!, tag, readOnly }];
}

export class Shares {
  private readonly options: readonly ShareOption[];
  private readonly folders: FileSystemBackend[] = [];

  private constructor(options: readonly ShareOption[]) {
    this.options = options;
  }

  /** Throws KernelError naming the folder: ENOENT, EACCES, ENOTDIR; EOPNOTSUPP where the host is not Linux. */
  static async open(options: readonly ShareOption[]): Promise<Shares> {
    for (const { path, readOnly } of options) await (await openFolder(path, { readOnly })).close();
    return new Shares(options);
  }

  /** One more guest's. Each has its own view of a folder, so that none can hold what is another's. */
  async devices(): Promise<VirtioFs[]> {
    const devices: VirtioFs[] = [];
    for (const { path, tag, readOnly } of this.options) {
      const fs = await openFolder(path, { readOnly });
      this.folders.push(fs);
      devices.push(new VirtioFs({ tag, fs }));
    }
    return devices;
  }

  async close(): Promise<void> {
    await Promise.all(this.folders.map((folder) => folder.close()));
  }
}
