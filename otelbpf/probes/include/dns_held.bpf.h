/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Segments of a DNS stream that came before their predecessors: kept until those are there.
 * Include once, after dns_cursor.bpf.h. */
#pragma once

#define HELD_BYTES 8192
#define HELD_RUNS 4

/* What came before its predecessors, from `base` on. It is mostly CPUs that overtake each other: a program that moves
 * to another CPU sends from there, while the first has not delivered yet. */
struct held {
	__u32 base; /* a sequence number */
	__u32 count;
	struct {
		__u32 from;
		__u32 to;
	} runs[HELD_RUNS];
	__u8 bytes[2 * HELD_BYTES]; /* the first half, as of a part */
};

/* As long as their sockets, as all that is remembered of a stream. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct held);
} held SEC(".maps");

/* Keeps a segment that came before its predecessors. Not 0 when there is no room. */
__noinline int hold(struct __sk_buff *skb, struct cursor *cursor, struct stream *stream, struct held *held)
{
	if (!cursor || !stream || !held)
		return -1;
	if (!held->count)
		held->base = stream->next;
	__u64 from = cursor->zero + cursor->at - held->base;
	__s64 bytes = cursor->end - cursor->at;

	OPAQUE(from);
	OPAQUE(bytes);
	if (from > HELD_BYTES || bytes > HELD_BYTES || bytes <= 0 || from + bytes > HELD_BYTES ||
	    bpf_skb_load_bytes(skb, cursor->at, held->bytes + from, bytes))
		return -1;
	__u32 begin = from, end = from + bytes;

	for (int i = 0; i < HELD_RUNS; i++) { /* takes up the runs that it touches */
		__u32 run_begins = held->runs[i].from, run_ends = held->runs[i].to;

		if (run_begins == run_ends || run_begins > end || run_ends < begin)
			continue;
		begin = run_begins < begin ? run_begins : begin;
		end = run_ends > end ? run_ends : end;
		held->runs[i].from = held->runs[i].to = 0;
		held->count--;
	}
	for (int i = 0; i < HELD_RUNS; i++)
		if (held->runs[i].from == held->runs[i].to) {
			held->runs[i].from = begin;
			held->runs[i].to = end;
			held->count++;
			return 0;
		}
	return -1;
}

static __always_inline void forget_held(struct held *held)
{
	held->count = 0;
	__builtin_memset(held->runs, 0, sizeof(held->runs));
}
