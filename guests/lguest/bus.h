/*
 * lguest's bus: where RAM ends is a page in which the launcher describes the devices, one after the other until a type of 0. Behind the descriptor come
 * `num_vq` virtqueues, `feature_len` bytes of features that the device offers, as many of those that the driver takes, and `config_len` bytes that are the device's
 * own. The rings lie in pages that the launcher has set aside; LHCALL_NOTIFY with a ring's address tells the launcher that there is something in it, and with
 * the descriptor's that its status has changed. src/vmm/lguest/bus.ts is the other side.
 */
#ifndef FORKHOG_BUS_H
#define FORKHOG_BUS_H
#include "vring.h"

/* Types and status bits are virtio's (Virtual I/O Device Version 1.2, 2.1 and 5). */
enum { DEVICE_BLOCK = 2, DEVICE_CONSOLE = 3 };

struct lguest_device_desc { u8 type, num_vq, feature_len, config_len, status; };

struct lguest_vqconfig {
	u16 num;			/* descriptors */
	u16 irq;
	u32 pfn;			/* of its first page */
};

struct device {
	struct lguest_device_desc *desc;
	const u8 *config;
};

/* The first device of the type; 0 where there is none. `page` is the descriptors' physical address. */
int bus_find(u64 page, u8 type, struct device *device);
/* Makes queue `index` ready for use, before the device starts. */
void bus_queue(const struct device *device, u64 index, struct vring *ring);
/* The device may use its queues from now on; 0 where it refuses. */
int bus_start(const struct device *device);

#endif
