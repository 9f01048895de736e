/* epoch.c - see epoch.h. All operations are sequentially consistent: a reader counts itself before it looks at anything, and looks
 * again whether the epoch is still the one that it counted itself in. */
#include "memory/epoch.h"

void ruv_epoch_init(ruv_epoch *epoch)
{
	atomic_init(&epoch->current, 2);
	atomic_init(&epoch->readers[0], 0);
	atomic_init(&epoch->readers[1], 0);
}

unsigned ruv_epoch_enter(ruv_epoch *epoch)
{
	for (;;) {
		unsigned e = atomic_load(&epoch->current);
		atomic_fetch_add(&epoch->readers[e & 1], 1);
		if (atomic_load(&epoch->current) == e)
			return e;
		atomic_fetch_sub(&epoch->readers[e & 1], 1);
	}
}

void ruv_epoch_leave(ruv_epoch *epoch, unsigned ticket)
{
	atomic_fetch_sub(&epoch->readers[ticket & 1], 1);
}

unsigned ruv_epoch_advance(ruv_epoch *epoch)
{
	unsigned e = atomic_load(&epoch->current);

	if (atomic_load(&epoch->readers[(e - 1) & 1]) == 0)
		atomic_store(&epoch->current, ++e);
	return e;
}
