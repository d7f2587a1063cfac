/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One cgroup that floods must neither fill the ring for its neighbours nor bend a number: what it does beyond its rate is
 * not told one by one, but summed. Include once, after event.bpf.h and a `struct throttled_sums` of __u64 (what the
 * probe's counters need, `events` among them).
 *
 *   over = over_rate(cgroup_id, now);        NULL: tell it
 *   sums = sums_of(over, &key, pid, comm);   else add it up; each event of these is in the ledger as throttled */
#pragma once

#define BUCKETS 2048      /* cgroups that have a rate of their own */
#define TOTALS 1024       /* entries of sums between two readings */
#define TOTALS_SHARE 64   /* of these, that one cgroup may have */
#define THROTTLED_KINDS 2 /* a probe's kinds of events are 1 and 2 */

/* Written by user space, also while programs run. Not in .bss: that is where all CPUs count. */
struct throttle {
	__u64 interval_ns;  /* between two events at the rate; 0 = no limit */
	__u64 tolerance_ns; /* how far ahead of its rate a cgroup may be: its burst */
	__u64 generation;   /* counts the readings of the sums */
};
struct throttle throttle SEC(".data") = {};

/* What had no entry of its own. */
struct throttle_counts {
	__u64 buckets; /* events of cgroups that share a bucket */
	__u64 totals;  /* events whose sums say less of them */
};
struct throttle_counts throttle_counts;

/* A bucket that is full again is as good as none: user space takes it away. */
struct bucket {
	__u64 paid_until_ns;
	__u64 generation;
	__u64 entries; /* of sums, in this generation */
};
struct bucket shared_bucket;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BUCKETS);
	__type(key, __u64); /* cgroup */
	__type(value, struct bucket);
} throttle_buckets SEC(".maps");

struct throttled_key {
	__u64 cgroup_id;
	__u64 executable;
	__u16 error;
	__u16 question_type;
	__u8 kind;
	__u8 role;
	__u8 how;
	__u8 transport;
};
struct throttled {
	__u32 pid; /* of one of them, so that its executable can be named; set on the CPU that made the entry */
	char comm[16];
	struct throttled_sums sums;
};
EVENT(throttled_key);
EVENT(throttled);
EVENT(event_head);

/* Two, so that one is still while it is read: user space puts the other in its place, and the kernel returns from that
 * when no program uses the first any more. Allocated beforehand: an allocation may fail here, and would bend a sum. In
 * each, user space keeps an entry of no cgroup for each kind, which takes what there is no room for. */
struct throttled_map {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, TOTALS);
	__type(key, struct throttled_key);
	__type(value, struct throttled);
} throttled_one SEC(".maps"), throttled_other SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct throttled_map);
} throttled_now SEC(".maps") = { .values = { &throttled_one } };

static const struct throttled no_sums;

static __always_inline struct bucket *bucket_of(__u64 cgroup_id)
{
	struct bucket *bucket = bpf_map_lookup_elem(&throttle_buckets, &cgroup_id), full = {};

	if (bucket)
		return bucket;
	bpf_map_update_elem(&throttle_buckets, &cgroup_id, &full, BPF_NOEXIST);
	bucket = bpf_map_lookup_elem(&throttle_buckets, &cgroup_id);
	if (bucket)
		return bucket;
	__sync_fetch_and_add(&throttle_counts.buckets, 1);
	return &shared_bucket;
}

/* The bucket, if this event is beyond the rate of its cgroup. Events are paid for in time: one that comes before all
 * earlier ones are paid for must not be more than a burst early. Two CPUs that look at once may both be let through. */
static __always_inline struct bucket *over_rate(__u64 cgroup_id, __u64 now)
{
	__u64 interval_ns = throttle.interval_ns, paid_until;
	struct bucket *bucket;

	if (!interval_ns)
		return NULL;
	bucket = bucket_of(cgroup_id);
	paid_until = bucket->paid_until_ns;
	if (paid_until < now)
		bucket->paid_until_ns = now + interval_ns;
	else if (paid_until - now > throttle.tolerance_ns)
		return bucket;
	else
		__sync_fetch_and_add(&bucket->paid_until_ns, interval_ns);
	return NULL;
}

static __always_inline bool has_share(struct bucket *bucket)
{
	if (bucket->generation != throttle.generation) {
		bucket->generation = throttle.generation;
		bucket->entries = 0;
	}
	return bucket->entries < TOTALS_SHARE;
}

static __always_inline struct throttled *made_entry(void *totals, const struct throttled_key *key, __u32 pid,
						    const char comm[16])
{
	struct throttled *entry;

	bpf_map_update_elem(totals, key, &no_sums, BPF_NOEXIST);
	entry = bpf_map_lookup_elem(totals, key);
	if (entry) {
		entry->pid = pid;
		__builtin_memcpy(entry->comm, comm, 16);
	}
	return entry;
}

/* Where this event is to be added up, atomically: an interrupt may add on the same CPU. What has no room is known by its
 * cgroup and its kind, then by its kind only. Never NULL, which only the verifier does not know. Counts the event. */
static __noinline struct throttled *sums_of(struct bucket *over, struct throttled_key *key, __u32 pid, const char *comm)
{
	__u32 zero = 0;
	void *totals = bpf_map_lookup_elem(&throttled_now, &zero);
	struct throttled *entry;

	COUNT(throttled);
	if (!totals)
		return NULL;
	entry = bpf_map_lookup_elem(totals, key);
	if (entry)
		return entry;
	if (has_share(over)) {
		entry = made_entry(totals, key, pid, comm);
		if (entry) {
			__sync_fetch_and_add(&over->entries, 1);
			return entry;
		}
	}
	struct throttled_key less = { .cgroup_id = key->cgroup_id, .kind = key->kind };

	__sync_fetch_and_add(&throttle_counts.totals, 1);
	entry = bpf_map_lookup_elem(totals, &less) ?: made_entry(totals, &less, pid, comm);
	if (entry)
		return entry;
	less.cgroup_id = 0;
	return bpf_map_lookup_elem(totals, &less);
}
