/**
 * Writes a flattened device tree, version 17 of the format. Source: Devicetree Specification 0.4, chapter 5.
 *
 * A property is a string, a list of strings, one or more 32-bit cells, bytes, or `true` for one without a value. Property
 * and child order is the object's.
 *
 * Use: `buildDeviceTree(root)`.
 */

export type FdtProperty = string | readonly string[] | number | readonly number[] | Uint8Array | true;

export interface FdtNode {
  readonly properties?: Readonly<Record<string, FdtProperty>>;
  readonly children?: Readonly<Record<string, FdtNode>>;
}

const FDT_MAGIC = 0xd00dfeed;
const FDT_VERSION = 17;
const FDT_LAST_COMPATIBLE_VERSION = 16;
const FDT_HEADER_BYTES = 40;
/** One empty entry ends the memory reservation block. */
const FDT_RESERVATION_BYTES = 16;
const FDT_BEGIN_NODE = 1;
const FDT_END_NODE = 2;
const FDT_PROP = 3;
const FDT_END = 9;

export function buildDeviceTree(root: FdtNode): Uint8Array {
  const writer = new FdtWriter();
  writer.node('', root);
  return writer.finish();
}

/** A 64-bit number as two cells, high first. */
export function cells64(value: number): number[] {
  return [Math.floor(value / 2 ** 32), value >>> 0];
}

class FdtWriter {
  private readonly structure: number[] = [];
  private readonly strings: number[] = [];
  private readonly stringOffsets = new Map<string, number>();

  node(name: string, node: FdtNode): void {
    this.cell(FDT_BEGIN_NODE);
    this.bytes(cstring(name));
    for (const [key, value] of Object.entries(node.properties ?? {})) this.property(key, propertyBytes(value));
    for (const [key, child] of Object.entries(node.children ?? {})) this.node(key, child);
    this.cell(FDT_END_NODE);
  }

  finish(): Uint8Array {
    this.cell(FDT_END);
    const structureAt = FDT_HEADER_BYTES + FDT_RESERVATION_BYTES;
    const stringsAt = structureAt + this.structure.length;
    const total = stringsAt + this.strings.length;
    const blob = new Uint8Array(total);
    blob.set(this.structure, structureAt);
    blob.set(this.strings, stringsAt);
    const header = [FDT_MAGIC, total, structureAt, stringsAt, FDT_HEADER_BYTES, FDT_VERSION];
    header.push(FDT_LAST_COMPATIBLE_VERSION, 0, this.strings.length, this.structure.length);
    blob.set(cellBytes(header));
    return blob;
  }

  private property(name: string, value: ArrayLike<number>): void {
    this.cell(FDT_PROP);
    this.cell(value.length);
    this.cell(this.stringOffset(name));
    this.bytes(value);
  }

  private stringOffset(name: string): number {
    const known = this.stringOffsets.get(name);
    if (known !== undefined) return known;
    const offset = this.strings.length;
    this.strings.push(...cstring(name));
    this.stringOffsets.set(name, offset);
    return offset;
  }

  private cell(value: number): void {
    this.structure.push(...cellBytes([value]));
  }

  private bytes(bytes: ArrayLike<number>): void {
    for (let i = 0; i < bytes.length; i++) this.structure.push(bytes[i]);
    while (this.structure.length % 4 !== 0) this.structure.push(0);
  }
}

function propertyBytes(value: FdtProperty): ArrayLike<number> {
  if (value === true) return [];
  if (value instanceof Uint8Array) return value;
  if (typeof value === 'string') return cstring(value);
  if (typeof value === 'number') return cellBytes([value]);
  return value.flatMap((item) => (typeof item === 'string' ? cstring(item) : cellBytes([item])));
}

function cstring(text: string): number[] {
  return [...utf8(text), 0];
}

/** The bytes of UTF-8. Without TextEncoder, which the core layers' types do not know. */
export function utf8(text: string): number[] {
  const encoded = encodeURIComponent(text).replace(/%([0-9A-F]{2})/g, (_, hex) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return Array.from(encoded, (char) => char.charCodeAt(0));
}

function cellBytes(cells: readonly number[]): number[] {
  return cells.flatMap((cell) => [(cell >>> 24) & 0xff, (cell >>> 16) & 0xff, (cell >>> 8) & 0xff, cell & 0xff]);
}
