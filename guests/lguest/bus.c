#include "bus.h"
#include "frames.h"
#include "hcall.h"

enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };
/* VIRTIO_F_VERSION_1 is bit 32. */
enum { VERSION_1_BYTE = 4, VERSION_1_BIT = 1 };

static u8 *features(const struct lguest_device_desc *desc)
{
	return (u8 *)(desc + 1) + desc->num_vq * sizeof(struct lguest_vqconfig);
}

int bus_find(u64 page, u8 type, struct device *device)
{
	u8 *at = virt(page), *end = at + PAGE_SIZE - sizeof(struct lguest_device_desc);

	while (at < end) {
		struct lguest_device_desc *desc = (struct lguest_device_desc *)at;
		const u8 *config = features(desc) + 2 * desc->feature_len;

		if (desc->type == 0)
			break;
		if (desc->type == type) {
			*device = (struct device){ desc, config };
			return 1;
		}
		at = (u8 *)config + desc->config_len;
	}
	return 0;
}

static u64 bytes(const u8 *from, u64 n)
{
	u64 value = 0;

	while (n-- > 0)
		value = value << 8 | from[n];
	return value;
}

/* Descriptors follow each other without gaps, so fields are read by bytes. */
void bus_queue(const struct device *device, u64 index, struct vring *ring)
{
	const u8 *vq = (const u8 *)(device->desc + 1) + index * sizeof(struct lguest_vqconfig);

	vring_init(ring, bytes(vq, 2), bytes(vq + 2, 2), bytes(vq + 4, 4) << PAGE_SHIFT);
}

static void set_status(const struct device *device, u8 bits)
{
	volatile u8 *status = &device->desc->status;

	*status = *status | bits;
	hcall(LHCALL_NOTIFY, pa_of(device->desc), 0, 0);
}

/* Of all features we take the one without which no device of today works. */
int bus_start(const struct device *device)
{
	struct lguest_device_desc *desc = device->desc;

	if (desc->feature_len <= VERSION_1_BYTE)
		return 0;
	features(desc)[desc->feature_len + VERSION_1_BYTE] = VERSION_1_BIT;
	set_status(device, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
	if (!(*(volatile u8 *)&desc->status & STATUS_FEATURES_OK))
		return 0;
	set_status(device, STATUS_DRIVER_OK);
	return 1;
}
