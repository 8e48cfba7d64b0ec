import { InvalidArgumentError } from 'commander';
import { KernelError, systemError } from '../base/index.js';
import { type BlockBackend, OverlayDisk, VirtioBlk } from '../machine/index.js';
import { type FileStore, openFileStore, openScratchFile } from '../node/index.js';

/** The disks of `--disk FILE[,ro][,overlay]`: opened before anything runs, closed when all guests are done. */

export interface DiskOption {
  readonly path: string;
  readonly mode: 'rw' | 'ro' | 'overlay';
}

/** For commander: appends what `text` says to the disks before it. */
export function parseDisk(text: string, before: readonly DiskOption[] | undefined): DiskOption[] {
  const [path, ...modes] = text.split(',');
  const unknown = modes.find((mode) => mode !== 'ro' && mode !== 'overlay');
  if (path === '' || unknown !== undefined || modes.length > 1)
    throw new InvalidArgumentError(`'${text}' must be FILE, FILE,ro or FILE,overlay.`);
  return [...(before ?? []), { path: path!, mode: (modes[0] as 'ro' | 'overlay' | undefined) ?? 'rw' }];
}

/** "QFI\xfb" (qemu docs/interop/qcow2.rst). */
const QCOW_MAGIC = [0x51, 0x46, 0x49, 0xfb];

interface OpenDisk {
  readonly option: DiskOption;
  readonly file: FileStore;
}

export class Disks {
  private readonly open: OpenDisk[] = [];
  private readonly overlays: BlockBackend[] = [];

  private constructor() {}

  /**
   * Throws KernelError naming the file: ENOENT, EACCES, EISDIR, EROFS, EBUSY (another process writes it, or has it where it would be written), and EINVAL for a file that is
   * not raw, or that several guests would write. What cannot be guarded is told to `tell`.
   */
  static async open(
    verb: string,
    options: readonly DiskOption[],
    nrGuests: number,
    tell: (text: string) => void,
  ): Promise<Disks> {
    const disks = new Disks();
    try {
      for (const option of options) {
        checkShared(verb, option, nrGuests);
        const file = await openDisk(option);
        disks.open.push({ option, file });
        lock(option, file, tell);
        await checkRaw(verb, option, file);
      }
      return disks;
    } catch (error) {
      await disks.close();
      throw error;
    }
  }

  /** The paths, by what is to be said of them. */
  static filesOf(options: readonly DiskOption[]): Record<string, string> {
    const name = (i: number) => (options.length === 1 ? '--disk' : `--disk (${i + 1})`);
    return Object.fromEntries(options.map(({ path }, i) => [name(i), path]));
  }

  /** The disks of one more guest, in the order of the options: vda, vdb. `onError` is told of the first refusal of each. */
  devices(onError: (message: string) => void): VirtioBlk[] {
    return this.open.map(({ option, file }, i) => {
      let told = false;
      return new VirtioBlk({
        backend: option.mode === 'overlay' ? this.overlay(file) : file,
        serial: `unpin-disk${i}`,
        onError: ({ message }) => {
          if (!told) onError(message);
          told = true;
        },
      });
    });
  }

  private overlay(file: FileStore): BlockBackend {
    const overlay = new OverlayDisk(file, openScratchFile(file.sizeBytes));
    this.overlays.push(overlay);
    return overlay;
  }

  async close(): Promise<void> {
    await Promise.all([...this.overlays, ...this.open.map(({ file }) => file)].map((disk) => disk.close()));
  }
}

async function openDisk({ path, mode }: DiskOption): Promise<FileStore> {
  try {
    return await openFileStore(path, mode === 'rw' ? 'r+' : 'r');
  } catch (error) {
    const rights = mode === 'rw' ? 'read and written' : 'read';
    throw systemError('open', `disk '${path}' must be a file that can be ${rights}`, error);
  }
}

/** One that is written is one process's alone; what is under an overlay, or only read, must stay as it is. */
function lock({ path, mode }: DiskOption, file: FileStore, tell: (text: string) => void): void {
  const outcome = file.tryLock(mode === 'rw' ? 'exclusive' : 'shared');
  if (outcome === 'unknown')
    tell(`unpin: disk '${path}' cannot be locked (flock of util-linux): take care that no other process writes it\n`);
  if (outcome !== 'held') return;
  const right = mode === 'rw' ? 'no other process may have a disk that is written' : 'no other process may write it';
  throw new KernelError('EBUSY', 'open', `disk '${path}' is in use; ${right}`);
}

/** What clouds offer is often in QEMU's own format, of which a guest would make nothing. */
async function checkRaw(verb: string, { path }: DiskOption, file: FileStore): Promise<void> {
  const start = new Uint8Array(QCOW_MAGIC.length);
  await file.read(0, [start]);
  if (!QCOW_MAGIC.every((byte, i) => start[i] === byte)) return;
  const right = `it must be raw: qemu-img convert -O raw ${path} ${path}.raw`;
  throw new KernelError('EINVAL', verb, `disk '${path}' is a qcow2 image; ${right}`);
}

function checkShared(verb: string, { path, mode }: DiskOption, nrGuests: number): void {
  if (mode !== 'rw' || nrGuests === 1) return;
  const right = `it must be '${path},overlay' or '${path},ro' for ${nrGuests} guests`;
  throw new KernelError('EINVAL', verb, `--disk ${path} would be written by all guests at once; ${right}`);
}
