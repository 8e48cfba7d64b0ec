#include "virtio.h"
#include "pages.h"
#include "space.h"
#include "sv39.h"

/* As on QEMU's virt and on our board. */
#define ECAM_BASE 0x30000000ul
#define BAR_BASE 0x40000000ul
#define NR_DEVICES 32
#define CONFIG_BYTES_SHIFT 15		/* of a device's eight functions */
#define BAR_BYTES 0x10000ul
#define VENDOR_ID 0x1af4u
#define DEVICE_ID_BASE 0x1040u

#define PCI_COMMAND 0x04
#define PCI_COMMAND_MEMORY_AND_MASTER 0x06
#define PCI_BAR0 0x10
#define PCI_CAPABILITIES 0x34
#define CAP_VENDOR 0x09
#define CAP_TYPE 3
#define CAP_OFFSET 8
#define CAP_NOTIFY_STEP 16
enum { CAP_COMMON = 1, CAP_NOTIFY = 2 };

/* struct virtio_pci_common_cfg. */
#define FEATURE_SELECT 0x08
#define FEATURE 0x0c
#define STATUS 0x14
#define QUEUE_SELECT 0x16
#define QUEUE_SIZE 0x18
#define QUEUE_ENABLE 0x1c
#define QUEUE_NOTIFY_OFF 0x1e
#define QUEUE_DESC 0x20
#define QUEUE_AVAIL 0x28
#define QUEUE_USED 0x30
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

#define RING_SIZE 8
#define DESC_WRITE 2
#define AVAIL_NO_INTERRUPT 1

struct virtq {
	struct { u64 address; u32 length; unsigned short flags, next; } desc[RING_SIZE];
	unsigned short avail_flags, avail_index, avail[RING_SIZE], used_event, pad[7];
	unsigned short used_flags, used_index;
	struct { u32 id, length; } used[RING_SIZE];
	/* The driver's own. */
	u64 notify;
};

static u8 read8(u64 at) { return *(volatile u8 *)at; }
static u32 read32(u64 at) { return *(volatile u32 *)at; }
static unsigned short read16(u64 at) { return *(volatile unsigned short *)at; }
static void write8(u64 at, u8 value) { *(volatile u8 *)at = value; }
static void write16(u64 at, unsigned short value) { *(volatile unsigned short *)at = value; }
static void write32(u64 at, u32 value) { *(volatile u32 *)at = value; }
static void write64(u64 at, u64 value) { write32(at, (u32)value), write32(at + 4, (u32)(value >> 32)); }

/* Registers are mapped where they lie, below RAM. */
static void map_registers(u64 start, u64 bytes)
{
	for (u64 at = start; at < start + bytes; at += PAGE_SIZE)
		map_page(kernel_root, at, at, PTE_R | PTE_W | PTE_A | PTE_D);
	sfence_vma_all();
}

int virtio_find(struct virtio *device, u64 type)
{
	for (u64 n = 0; n < NR_DEVICES; n++) {
		device->config = ECAM_BASE + (n << CONFIG_BYTES_SHIFT);
		map_registers(device->config, PAGE_SIZE);
		if (read32(device->config) != ((u32)(DEVICE_ID_BASE + type) << 16 | VENDOR_ID))
			continue;
		write32(device->config + PCI_BAR0, (u32)(BAR_BASE + n * BAR_BYTES));
		write16(device->config + PCI_COMMAND, PCI_COMMAND_MEMORY_AND_MASTER);
		map_registers(BAR_BASE + n * BAR_BYTES, BAR_BYTES);
		return 1;
	}
	return 0;
}

static void find_registers(struct virtio *device)
{
	u64 bar = read32(device->config + PCI_BAR0) & ~0xful, cap;

	for (u64 at = read8(device->config + PCI_CAPABILITIES); at != 0; at = read8(cap + 1)) {
		cap = device->config + at;
		if (read8(cap) != CAP_VENDOR)
			continue;
		if (read8(cap + CAP_TYPE) == CAP_COMMON)
			device->common = bar + read32(cap + CAP_OFFSET);
		if (read8(cap + CAP_TYPE) == CAP_NOTIFY) {
			device->notify = bar + read32(cap + CAP_OFFSET);
			device->notify_step = read32(cap + CAP_NOTIFY_STEP);
		}
	}
}

static void set_features(u64 common, u32 select, u32 features)
{
	write32(common + FEATURE_SELECT, select);
	write32(common + FEATURE, features);
}

static struct virtq *queue_begin(const struct virtio *device, u64 n)
{
	u64 common = device->common;
	struct virtq *queue = (struct virtq *)page_alloc();

	queue->avail_flags = AVAIL_NO_INTERRUPT;
	write16(common + QUEUE_SELECT, (unsigned short)n);
	write16(common + QUEUE_SIZE, RING_SIZE);
	write64(common + QUEUE_DESC, (u64)queue->desc);
	write64(common + QUEUE_AVAIL, (u64)&queue->avail_flags);
	write64(common + QUEUE_USED, (u64)&queue->used_flags);
	queue->notify = device->notify + read16(common + QUEUE_NOTIFY_OFF) * device->notify_step;
	write16(common + QUEUE_ENABLE, 1);
	return queue;
}

void virtio_begin(struct virtio *device, u32 features, u64 nr_queues)
{
	find_registers(device);
	write8(device->common + STATUS, 0);
	while (read8(device->common + STATUS) != 0)
		;
	write8(device->common + STATUS, ACKNOWLEDGE | DRIVER);
	set_features(device->common, 0, features);
	set_features(device->common, 1, 1);
	write8(device->common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	if (!(read8(device->common + STATUS) & FEATURES_OK))
		die("the virtio device does not agree to features %lx", (u64)features);
	for (u64 n = 0; n < nr_queues; n++)
		device->queues[n] = queue_begin(device, n);
	write8(device->common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

void virtio_send(struct hart *me, const struct virtio *device, u64 n, u64 address, u64 length, int writes)
{
	struct virtq *queue = device->queues[n];
	unsigned short index = (unsigned short)(queue->avail_index + 1);

	queue->desc[0].address = address;
	queue->desc[0].length = (u32)length;
	queue->desc[0].flags = writes ? DESC_WRITE : 0;
	queue->avail[queue->avail_index % RING_SIZE] = 0;
	FENCE(rw, rw);
	WRITE_ONCE(queue->avail_index, index);
	FENCE(rw, rw);
	write16(queue->notify, (unsigned short)n);
	for (u64 spin = 0; READ_ONCE(queue->used_index) != index; spin++)
		relax(me, spin);
	FENCE(rw, rw);
}
