#include "hvc.h"
#include "bus.h"
#include "frames.h"
#include "hcall.h"
#include "platform.h"

enum { TRANSMIT = 1 };
#define NR_BUFFERS 8
#define BUFFER_BYTES 256

static struct vring transmit;
static int started;
static char buffers[NR_BUFFERS][BUFFER_BYTES];
/* By bits; and whose buffer a chain is, by its head. */
static u64 busy;
static u8 buffer_of[256];

void hvc_start(u64 page)
{
	struct device device;

	if (!bus_find(page, DEVICE_CONSOLE, &device))
		return;
	bus_queue(&device, TRANSMIT, &transmit);
	started = transmit.num <= sizeof(buffer_of) && bus_start(&device);
}

static void take_back(void)
{
	int head;

	while ((head = vring_take(&transmit)) >= 0)
		busy &= ~(1ul << buffer_of[head]);
}

/* A buffer that is free, once there is one. */
static u64 get_buffer(void)
{
	u64 i = 0;

	for (take_back(); busy == (1ul << NR_BUFFERS) - 1; take_back())
		platform_idle();
	while (busy >> i & 1)
		i++;
	return i;
}

/* The text ends with 0 there; it is told by its address. */
static void write_early(const char *text, u64 length)
{
	static char line[BUFFER_BYTES + 1];

	for (u64 i = 0; i < length; i++)
		line[i] = text[i];
	line[length] = 0;
	hcall(LHCALL_NOTIFY, pa_of(line), 0, 0);
}

static void write_piece(const char *text, u64 length)
{
	u64 buffer = get_buffer();
	int head;

	for (u64 i = 0; i < length; i++)
		buffers[buffer][i] = text[i];
	head = vring_add(&transmit, &(struct piece){ pa_of(buffers[buffer]), (u32)length, 0 }, 1);
	buffer_of[head] = (u8)buffer;
	busy |= 1ul << buffer;
}

void hvc_write(const char *text, u64 length)
{
	while (length > 0) {
		u64 piece = length < BUFFER_BYTES ? length : BUFFER_BYTES;

		if (started)
			write_piece(text, piece);
		else
			write_early(text, piece);
		text += piece, length -= piece;
	}
}

void hvc_drain(void)
{
	for (take_back(); busy != 0; take_back())
		platform_idle();
}
