import { KernelError } from '../../base/index.js';
import { MAX_FILE_BYTES } from '../file/addressspace.js';
import type { File } from '../file/file.js';
import { PAGE_SIZE } from '../layout.js';
import { PROT_WRITE, type Vma } from './vma.js';

/**
 * What a VMA has to do with the file that it maps: it keeps the file open, and it is in the tree of the file's mappings, by which pages
 * find those who map them. Shared anonymous memory is the mapping of a file without a name.
 */

export function checkOffset(offset: number): void {
  if (Number.isSafeInteger(offset) && offset % PAGE_SIZE === 0) return;
  throw new KernelError('EINVAL', 'mmap', `offset ${offset} must be a multiple of ${PAGE_SIZE}`);
}

export function checkFileRange(file: File, offset: number, nrPages: number): void {
  if (offset >= 0 && offset + nrPages * PAGE_SIZE <= MAX_FILE_BYTES) return;
  throw new KernelError(
    'EOVERFLOW',
    'mmap',
    `${nrPages} pages of ${file.name} from ${offset} on must end at most at 2^43`,
  );
}

/** Throws KernelError EACCES. */
export function checkFileRights(file: File, prot: number, shared: boolean): void {
  if (shared && (prot & PROT_WRITE) !== 0 && !file.writable)
    throw new KernelError('EACCES', 'mmap', `${file.name} must be open for writing to be written through a mapping`);
  if (!file.readable) throw new KernelError('EACCES', 'mmap', `${file.name} must be open for reading`);
}

/** The VMA, new or split off or copied, maps the file from now on. */
export function vmaSetFile(vma: Vma, file: File | undefined): void {
  if (file === undefined) return;
  vma.file = file.get();
  file.mapping.link(vma);
}

/** The bounds of the VMA have changed. */
export function vmaRelinkFile(vma: Vma): void {
  vma.file?.mapping.link(vma);
}

/** The VMA goes away, its pages are unmapped. Returns the file, which the caller puts when the bracket has ended: that may free pages. */
export function vmaClearFile(vma: Vma): File | undefined {
  const { file } = vma;
  file?.mapping.unlink(vma);
  return file;
}
