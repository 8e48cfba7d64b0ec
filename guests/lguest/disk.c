#include "disk.h"
#include "bus.h"
#include "frames.h"
#include "process.h"

/* Virtual I/O Device Version 1.2, 5.2. */
enum { BLK_IN = 0, BLK_OUT = 1, BLK_OK = 0 };
#define SECTORS_PER_BLOCK 8
#define NR_REQUESTS 8

struct request {
	struct { u32 type, reserved; u64 sector; } header;
	u8 status;
	int head;			/* of its chain; -1: free */
	u64 who;
};

static struct vring ring;
static struct request requests[NR_REQUESTS];
static u64 nr_blocks;

void disk_start(u64 page)
{
	struct device device;
	u64 sectors = 0;

	if (!bus_find(page, DEVICE_BLOCK, &device))
		return;
	bus_queue(&device, 0, &ring);
	for (int i = 7; i >= 0; i--)
		sectors = sectors << 8 | device.config[i];
	for (u64 i = 0; i < NR_REQUESTS; i++)
		requests[i].head = -1;
	if (bus_start(&device))
		nr_blocks = sectors / SECTORS_PER_BLOCK;
}

u64 disk_blocks(void)
{
	return nr_blocks;
}

static struct request *find_request(int head)
{
	for (u64 i = 0; i < NR_REQUESTS; i++)
		if (requests[i].head == head)
			return &requests[i];
	return 0;
}

int disk_move(u64 who, int is_write, u64 block, u64 pa)
{
	struct request *request = find_request(-1);
	struct piece pieces[3];

	if (request == 0)
		return 0;
	request->header.type = is_write ? BLK_OUT : BLK_IN;
	request->header.reserved = 0;
	request->header.sector = block * SECTORS_PER_BLOCK;
	request->status = 0xff;
	request->who = who;
	pieces[0] = (struct piece){ pa_of(&request->header), sizeof(request->header), 0 };
	pieces[1] = (struct piece){ pa, PAGE_SIZE, !is_write };
	pieces[2] = (struct piece){ pa_of(&request->status), 1, 1 };
	request->head = vring_add(&ring, pieces, 3);
	return request->head >= 0;
}

int disk_interrupt(u64 irq)
{
	int head;

	if (nr_blocks == 0 || irq != ring.irq)
		return 0;
	while ((head = vring_take(&ring)) >= 0) {
		struct request *request = find_request(head);

		request->head = -1;
		process_disk_done(request->who, *(volatile u8 *)&request->status == BLK_OK);
	}
	return 1;
}
