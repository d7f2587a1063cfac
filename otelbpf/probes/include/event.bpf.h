/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who and when, the ring, and the counts: what every probe has. Include once, after kernel.bpf.h. */
#pragma once

#ifndef RING_BYTES
#define RING_BYTES (1 << 20) /* user space sets the configured size before it loads */
#endif

/* The first member of every event, so that enrichment needs no knowledge of the probe. */
struct event_head {
	__u64 time_ns;    /* CLOCK_BOOTTIME */
	__u64 cgroup_id;  /* CGROUP_V1 marks an id of the v1 memory hierarchy */
	__u64 executable; /* device and inode of the executable: names it after the process is gone; 0 = none */
	__u32 pid;        /* thread group, initial pid namespace */
	__u32 netns;      /* inode of the network namespace */
	char comm[16];
};

/* Mapped by user space: the kernel side of the ledger. Every event ends in exactly one of the terms below `seen`
 * or in the ring. */
struct event_counts {
	__u64 seen;
	__u64 filtered;
	__u64 throttled;
	__u64 ring_full;    /* lost */
	__u64 pending_full; /* lost */
	__u64 unread;       /* lost: it went by, and could not be read or told whose it was */
	__s64 pending;      /* seen, not told yet (a question without its answer) */
};
struct event_counts event_counts;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

/* Puts the struct into BTF, where user space reads its layout: clang drops a struct that nothing refers to. */
#define EVENT(type) const struct type *event_##type __attribute__((unused))

#define COUNT(term) __sync_fetch_and_add(&event_counts.term, 1)

/* Room for an event, or NULL and the loss is counted. The first `zeroed` bytes are cleared: a payload behind them,
 * whose length the event carries, need not be. */
static __always_inline void *event_reserve(__u64 size, __u64 zeroed)
{
	void *event = bpf_ringbuf_reserve(&events, size, 0);

	if (!event) {
		COUNT(ring_full);
		return NULL;
	}
	__builtin_memset(event, 0, zeroed);
	return event;
}

/* Who runs now. Costs five dependent loads for the executable: call once a connection, not once a packet. */
static __always_inline void head_of_current(struct event_head *head)
{
	struct task_struct *task = bpf_get_current_task_btf();

	head->time_ns = bpf_ktime_get_boot_ns();
	head->cgroup_id = cgroup_id_of(task);
	head->executable = executable_of(task);
	head->pid = task->tgid;
	head->netns = netns_of(task);
	name_of(task, head->comm);
}
