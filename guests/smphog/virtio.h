/*
 * As much of virtio over PCI (VIRTIO 1.2, 2 and 4.1) as a driver needs that waits for each buffer: the function is found by its device id on bus 0, its
 * BAR placed, VERSION_1 and `features` negotiated, and each queue has one descriptor in use at a time.
 *
 * Use: virtio_find and virtio_begin by the boot hart, with the kernel's page tables in use; then virtio_send, one hart at a time.
 */
#ifndef SMPHOG_VIRTIO_H
#define SMPHOG_VIRTIO_H
#include "smp.h"

#define VIRTIO_NR_QUEUES 3

struct virtq;
struct virtio { u64 config, common, notify, notify_step; struct virtq *queues[VIRTIO_NR_QUEUES]; };

/* Whether there is a device of the type; then its registers are mapped. */
int virtio_find(struct virtio *device, u64 type);
/* To DRIVER_OK, with `nr_queues` queues. Dies where the device does not agree. */
void virtio_begin(struct virtio *device, u32 features, u64 nr_queues);
/* Returns when the device has used the buffer, which it writes to if `writes`. */
void virtio_send(struct hart *me, const struct virtio *device, u64 queue, u64 address, u64 length, int writes);

#endif
