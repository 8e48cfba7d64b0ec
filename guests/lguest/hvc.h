/* The console by virtio: lines wait in a few buffers until the launcher has taken them. Until it is started, and without one, by the early console. */
#ifndef FORKHOG_HVC_H
#define FORKHOG_HVC_H
#include "types.h"

/* `page`: see bus_find. */
void hvc_start(u64 page);
void hvc_write(const char *text, u64 length);
/* Returns when all of it is out. */
void hvc_drain(void);

#endif
