import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import * as M from '../../src/machine/index.js';

const hasDtc = spawnSync('dtc', ['--version']).status === 0;
if (!hasDtc) console.warn('SKIPPED: device tree against dtc (install device-tree-compiler)');

describe('device tree', () => {
  it.skipIf(!hasDtc)('is read back by dtc without a warning', () => {
    const blob = M.boardDeviceTree({
      ramBytes: 128 << 20,
      bootargs: 'console=ttyS0 quiet',
      nrHarts: 2,
      initrd: { start: 0x8400_0000, end: 0x8410_0001 },
      pci: true,
    });
    const dtc = spawnSync('dtc', ['-I', 'dtb', '-O', 'dts'], { input: blob, encoding: 'utf8' });
    expect(dtc.status).toBe(0);
    expect(dtc.stderr).toBe('');
    expect(dtc.stdout).toContain('bootargs = "console=ttyS0 quiet"');
    expect(dtc.stdout).toContain('reg = <0x00 0x80000000 0x00 0x8000000>');
    expect(dtc.stdout).toContain('linux,initrd-end = <0x00 0x84100001>');
    expect(dtc.stdout).toContain('interrupt-map-mask = <0xf800 0x00 0x00 0x07>');
    expect(dtc.stdout).toContain('interrupts-extended = <0x02 0x09 0x03 0x09>');
  });

  it('writes text as UTF-8', () => {
    const blob = M.boardDeviceTree({ ramBytes: 128 << 20, bootargs: 'grün 火' });
    expect(Buffer.from(blob).includes(Buffer.from('grün 火\0'))).toBe(true);
  });
});

describe('kernels', () => {
  const memhog = new Uint8Array(readFileSync(new URL('../../guests/images/memhog.img', import.meta.url)));

  it('loads an Image, plain and gzip, alike', () => {
    const plain = M.loadKernel(memhog, gunzipSync);
    expect(M.loadKernel(gzipSync(memhog), gunzipSync).segments[0].memBytes).toBe(plain.segments[0].memBytes);
    expect(plain.segments[0].memBytes).toBe(Number(Buffer.from(memhog).readBigUInt64LE(16)));
  });

  it('refuses what is no kernel, and damaged gzip', () => {
    expect(() => M.loadKernel(new Uint8Array(100), gunzipSync)).toThrow(/ENOEXEC.*00 00 00 00/);
    expect(() => M.loadKernel(gzipSync(memhog).subarray(0, 500), gunzipSync)).toThrow(/ENOEXEC.*truncated/);
  });

  const debian = join(process.env.UNPIN_DEBIAN_GUEST ?? 'debian-guest', 'Image');
  it.skipIf(!existsSync(debian))('loads Debian’s Image and sees where it is cut off', () => {
    const image = new Uint8Array(readFileSync(debian));
    expect(M.loadKernel(image, gunzipSync).format).toBe('image');
    expect(() => M.loadKernel(image.subarray(0, image.length - 4096), gunzipSync)).toThrow(/ENOEXEC.*truncated/);
  });

  it('places all of it apart, and refuses RAM a byte too small', () => {
    const kernel = M.loadKernel(memhog, gunzipSync);
    const want = { ramBase: M.RAM_BASE, ramBytes: 1 << 30, kernel, initrdBytes: 5000, dtbBytes: 4096 };
    const plan = M.planBoot(want);
    expect(plan.initrdStart).toBeGreaterThanOrEqual(plan.segments[0].address + plan.segments[0].memBytes);
    expect(plan.dtbStart).toBeGreaterThanOrEqual(plan.initrdStart + 5000);
    const need = plan.dtbStart + 4096 - M.RAM_BASE;
    expect(() => M.planBoot({ ...want, ramBytes: need })).not.toThrow();
    expect(() => M.planBoot({ ...want, ramBytes: need - 1 })).toThrow(/ENOMEM/);
  });
});

describe('UART and PLIC', () => {
  it('raise the hart’s line until the cause is gone, and again after complete while it is not', () => {
    const lines: boolean[] = [];
    const plic = new M.Plic({ nrHarts: 1, nrSources: 95, setExternalInterrupt: (_, on) => lines.push(on) });
    const uart = new M.Uart({ sink: () => {}, setIrq: (on) => plic.setLevel(M.UART_IRQ, on) });
    plic.write(M.UART_IRQ * 4, 4, 1);
    plic.write(0x2000, 4, 1 << M.UART_IRQ);
    uart.write(1, 1, M.IER_RDI);
    uart.receive(Uint8Array.of(65, 66));
    expect(lines).toEqual([true]);
    expect(plic.read(0x200004, 4)).toBe(M.UART_IRQ);
    expect(plic.read(0x200004, 4)).toBe(0);
    expect(uart.read(0, 1)).toBe(65);
    plic.write(0x200004, 4, M.UART_IRQ);
    expect(lines).toEqual([true, false, true]);
    expect(uart.read(0, 1)).toBe(66);
    expect(lines.at(-1)).toBe(false);
  });

  it('reports an empty transmitter once for each write, cleared by reading IIR', () => {
    const sent: number[] = [];
    const uart = new M.Uart({ sink: (bytes) => sent.push(...bytes), setIrq: () => {} });
    uart.write(1, 1, M.IER_THRI);
    for (let round = 0; round < 2; round++) {
      expect(uart.read(2, 1)).toBe(M.IIR_THRI);
      expect(uart.read(2, 1)).toBe(M.IIR_NO_INT);
      uart.write(0, 1, 72 + round);
    }
    expect(sent).toEqual([72, 73]);
  });
});
