/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the throttle costs an event, without the noise of what causes events: many in a row in one run. */
#include "kernel.bpf.h"
#include "event.bpf.h"
struct throttled_sums {
	__u64 events;
};
#include "throttle.bpf.h"

#define ROUNDS 1000000
#define CGROUPS 16 /* that are busy at a time */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__u64 took_ns;

static long nothing(__u32 round, void *context)
{
	return 0;
}

static long clock(__u32 round, void *context)
{
	bpf_ktime_get_boot_ns();
	return 0;
}

static long check(__u32 round, void *context)
{
	over_rate(round % CGROUPS + 1, bpf_ktime_get_boot_ns());
	return 0;
}

static long check_and_sum(__u32 round, void *context)
{
	struct throttled_key key = { .cgroup_id = round % CGROUPS + 1, .kind = 1 };
	struct bucket *over = over_rate(key.cgroup_id, bpf_ktime_get_boot_ns());
	struct throttled *entry = over ? sums_of(over, &key, 1, "program") : NULL;

	if (entry)
		__sync_fetch_and_add(&entry->sums.events, 1);
	return 0;
}

#define TIMED(name, callback)                              \
	SEC("syscall") int name(void *context)             \
	{                                                  \
		__u64 began = bpf_ktime_get_boot_ns();     \
                                                           \
		bpf_loop(ROUNDS, callback, NULL, 0);       \
		took_ns = bpf_ktime_get_boot_ns() - began; \
		return 0;                                  \
	}

TIMED(time_nothing, nothing)
TIMED(time_clock, clock)
TIMED(time_check, check)
TIMED(time_check_and_sum, check_and_sum)
