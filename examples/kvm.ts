import { KVM_EXIT_MMIO, Kvm, kvmExitName } from 'unpin/kvm';
import { Host, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from 'unpin/mm';
import { nodeEnvironment } from 'unpin/node';

/** The smallest machine, as one sees it done with /dev/kvm: a page of RAM, three instructions, and a device that doubles what it is given. */

const RAM = 0x8000_0000;
const PAGE = 4096;

const host = new Host({ frames: 1024, arenaBytes: 48 * 2 ** 20 });
const kvm = new Kvm(host, nodeEnvironment());
const mm = host.createMm();
const hva = mm.mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
const vm = kvm.createVm(mm);
vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: PAGE, userspaceAddr: hva });

// sd a0, 0(a1): to the device; ld a0, 0(a1): its answer; j .-8: again.
const program = Uint32Array.of(0x00a5b023, 0x0005b503, 0xff9ff06f);
await mm.write(hva, new Uint8Array(program.buffer));

const vcpu = vm.createVcpu(0);
vcpu.hart.pc = BigInt(RAM);
vcpu.hart.setX(10, 1n);
vcpu.hart.setX(11, 0x4000_0000n);
for (let last = 0n; last < 1000n; ) {
  const exit = await vcpu.run();
  if (exit.reason !== KVM_EXIT_MMIO) throw new Error(`the guest came out with ${kvmExitName(exit)}`);
  if (exit.isWrite) last = exit.data;
  else vcpu.completeMmioRead(last * 2n);
  if (exit.isWrite) console.log(`${kvmExitName(exit)} at 0x${exit.physAddr.toString(16)}: ${last}`);
}
await vm.destroy();
mm.exit();
await host.stop();
