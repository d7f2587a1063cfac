/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A producer of known records, and programs that this or every kernel refuses: for the tests of otelbpf/kernel. */
#include "kernel.bpf.h"
#include "event.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#ifndef PAYLOAD
#define PAYLOAD 64
#endif

struct sample {
	struct event_head head;
	__u64 sequence;
	__s32 negative;
	__u16 ports[4];
	__u8 address[16];
	char name[12];
	bool yes;
	__u8 payload[PAYLOAD];
};
EVENT(sample);

struct with_union {
	union {
		__u32 a;
		__u16 b;
	} either;
};
EVENT(with_union);

struct with_bits {
	__u32 low : 3;
	__u32 high : 29;
};
EVENT(with_bits);

enum color { RED };
struct with_enum {
	enum color color;
};
EVENT(with_enum);

struct with_pointer {
	void *pointer;
};
EVENT(with_pointer);

const volatile __u32 burst = 100;
const volatile __u32 discard_every = 0;
const volatile __u16 some_ports[4];
const volatile bool wanted = true;

__u64 next_sequence;
__u64 calls;
__u32 odd;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

static long produce_one(__u32 index, void *unused)
{
	__u64 sequence = __sync_fetch_and_add(&next_sequence, 1);

	COUNT(seen);
	struct sample *event = event_reserve(sizeof(*event), sizeof(*event));

	if (!event)
		return 0;
	head_of_current(&event->head);
	event->sequence = sequence;
	event->negative = -7;
	event->ports[2] = some_ports[2];
	event->address[15] = 1;
	event->name[0] = 'o';
	event->name[1] = 'k';
	event->yes = wanted;
	if (discard_every && sequence % discard_every == 0)
		bpf_ringbuf_discard(event, 0);
	else
		bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("syscall")
int produce(void *unused)
{
	bpf_loop(burst, produce_one, NULL, 0);
	return burst;
}

/* Holds the head of the ring busy for some milliseconds. */
static long waste(__u32 index, void *unused)
{
	return bpf_ktime_get_boot_ns() == 0;
}

SEC("syscall")
int hold(void *unused)
{
	struct sample *event = event_reserve(sizeof(*event), sizeof(*event));

	if (!event)
		return 0;
	COUNT(seen);
	event->sequence = __sync_fetch_and_add(&next_sequence, 1);
	bpf_loop(1 << 20, waste, NULL, 0);
	bpf_ringbuf_submit(event, 0);
	return 1;
}

SEC("tp_btf/sys_enter")
int on_syscall(void *context)
{
	__sync_fetch_and_add(&calls, 1);
	return 0;
}

SEC("raw_tp/sys_enter")
int on_syscall_raw(void *context)
{
	__sync_fetch_and_add(&calls, 1);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getppid")
int on_getppid(void *context)
{
	__sync_fetch_and_add(&calls, 1);
	return 0;
}

SEC("cgroup_skb/egress")
int on_packet(struct __sk_buff *packet)
{
	__sync_fetch_and_add(&calls, 1);
	return 1;
}

SEC("tp_btf/otelbpf_no_such_tracepoint")
int absent(void *context)
{
	return 0;
}

SEC("tracepoint/otelbpf/no_such_tracepoint")
int absent_when_attached(void *context)
{
	return 0;
}

SEC("tp_btf/sys_enter")
int unsafe(__u64 *context)
{
	return *(int *)(context[1] + 64);
}

struct bpf_iter_meta {
	void *seq;
} KERNEL;
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} KERNEL;
struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *map;
	void *key;
	void *value;
} KERNEL;

/* Not on the stack, where a large payload does not fit; one test reads at a time. */
struct sample row;

SEC("iter/task")
int each_task(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;

	if (!task)
		return 0;
	row.sequence = task->pid;
	head_of_current(&row.head);
	bpf_seq_write(context->meta->seq, &row, sizeof(row));
	return 0;
}

SEC("iter/bpf_map_elem")
int each_entry(struct bpf_iter__bpf_map_elem *context)
{
	__u32 *key = context->key;
	__u64 *value = context->value;

	if (!key || !value)
		return 0;
	struct {
		__u64 key, value;
	} entry = {*key, *value};

	bpf_seq_write(context->meta->seq, &entry, sizeof(entry));
	return 0;
}
