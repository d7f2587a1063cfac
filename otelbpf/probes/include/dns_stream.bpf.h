/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* DNS over TCP: messages, each behind its length, in a stream that may be cut anywhere, sent again, or come in another
 * order. Only the beginning of a message is gathered; the rest is stepped over.
 * Include once, after dns_packet.bpf.h; message_seen() is its caller's. */
#pragma once

#define LENGTH_BYTES 2
#define HELD_BYTES 8192
#define HELD_RUNS 4
#define MESSAGES_OF_SEGMENT 128 /* what a program sends at once may be one segment here */
#define TURNS 4                 /* of waiting for another CPU, which has the stream for a microsecond or two */
#define LOOKS 128               /* of one turn */
#define TCP_LISTENING 10

int message_seen(struct __sk_buff *skb, struct message *message);

enum order {
	NEW,
	IN_ORDER,
	LOST, /* where the next message begins is not known; a segment that begins with one shows it */
};

/* One direction of a connection. */
struct stream {
	__u32 next; /* sequence number of the first byte that has not been looked at */
	__u16 gathered;
	__u8 order;
	bool taken;
};

struct streams {
	struct bpf_spin_lock lock; /* of `taken` alone: nothing may be called under it */
	struct stream received;
	struct stream sent;
};

/* What has come of a message that is not there as far as it is wanted. */
struct part {
	__u8 bytes[2 *
		   (LENGTH_BYTES + MESSAGE_BYTES)]; /* the first half: the verifier adds the longest to the longest */
};

struct parts {
	struct part received;
	struct part sent;
};

/* What came before its predecessors, from `base` on. It is mostly CPUs that overtake each other: a program that moves
 * to another CPU sends from there, while the first has not delivered yet. */
struct held {
	__u32 base; /* a sequence number */
	__u32 count;
	struct {
		__u32 from;
		__u32 to;
	} runs[HELD_RUNS];
	__u8 bytes[2 * HELD_BYTES]; /* the first half, as above */
};

/* As long as their sockets: nothing to clean up, and no more of them than there are connections to resolvers. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct streams);
} streams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct parts);
} parts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct held);
} held SEC(".maps");

/* The bytes of a segment, or of one that was held, from `at` to `end`. */
struct cursor {
	__u64 memory; /* 0: in the packet */
	__u32 at;
	__u32 end;
	__u32 zero; /* sequence number of where `at` is 0 */
	__u32 step; /* to the end of the message that was found */
};

typedef struct {
	struct net *net;
} possible_net_t;
struct sock_common {
	possible_net_t skc_net;
} KERNEL;
struct sock {
	struct sock_common __sk_common;
} KERNEL;
struct inet_sock {
	struct sock sk;
} KERNEL;
struct inet_connection_sock {
	struct inet_sock icsk_inet;
} KERNEL;
struct tcp_sock {
	struct inet_connection_sock inet_conn;
} KERNEL;

/* A server's first segment may come through the socket that listens, the answer leaves by that of the connection: what
 * is the same of both stands for the cookie. */
__noinline __u64 connection_of(struct __sk_buff *skb, struct message *message)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tcp;

	if (!sk || !message)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	const __u64 *address = (const __u64 *)message->local_address;
	__u64 netns = tcp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net->ns.inum;

	return (netns << 16 | message->local_port) ^ (address[0] ^ address[1]) * 0x9e3779b97f4a7c15ULL;
}

static __always_inline struct bpf_sock *connection(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->state != TCP_LISTENING ? sk : NULL;
}

/* Where a stream begins that is new to us, as the socket counts: at its first byte when nothing of it has gone by yet,
 * be this segment the first or not; else it is older than we are. */
static __always_inline void begin_stream(struct bpf_sock *sk, struct stream *stream, __u32 sequence, bool sent)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	stream->order = LOST;
	stream->next = sequence;
	if (!tcp)
		return;
	__u32 next = tcp->rcv_nxt, received = tcp->bytes_received;
	__u32 unacknowledged = tcp->snd_una, acknowledged = tcp->bytes_acked;

	OPAQUE(next); /* loads of their own: the verifier refuses one from a chosen place */
	OPAQUE(received);
	OPAQUE(unacknowledged);
	OPAQUE(acknowledged);
	if (!sent && !received) {
		stream->order = IN_ORDER;
		stream->next = next;
	}
	/* A client's SYN counts as acknowledged, a server's does not. What leaves does so in order. */
	if (sent && sequence - (unacknowledged - acknowledged) <= 1)
		stream->order = IN_ORDER;
}

__noinline int wait_for(struct stream *stream)
{
	if (stream)
		for (int i = 0; i < LOOKS && *(volatile bool *)&stream->taken; i++)
			;
	return 0;
}

/* Takes the stream for this CPU: segments of one connection may be received on two at the same time. */
static __always_inline bool take_stream(struct streams *streams, struct stream *stream)
{
	for (int i = 0; i < TURNS; i++) {
		bpf_spin_lock(&streams->lock);
		bool free = !stream->taken;

		stream->taken = true;
		bpf_spin_unlock(&streams->lock);
		if (free)
			return true;
		wait_for(stream);
	}
	return false;
}

static __always_inline void leave_stream(struct streams *streams, struct stream *stream)
{
	bpf_spin_lock(&streams->lock);
	stream->taken = false;
	bpf_spin_unlock(&streams->lock);
}

static __always_inline long read_cursor(struct __sk_buff *skb, const struct cursor *cursor, void *to, __u64 bytes)
{
	if (cursor->memory)
		return bpf_probe_read_kernel(to, bytes, (void *)(cursor->memory + cursor->at));
	return bpf_skb_load_bytes(skb, cursor->at, to, bytes);
}

static __always_inline __u32 wanted_of(__u32 bytes)
{
	return bytes < MESSAGE_BYTES ? bytes : MESSAGE_BYTES;
}

enum turn { MORE, FOUND, DONE, NO_ROOM };

/* A message that lies at the cursor as far as it is wanted. */
static __always_inline enum turn whole_message(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
					       struct stream *stream)
{
	__u32 left = cursor->end - cursor->at;
	__be16 length;

	if (left < LENGTH_BYTES || read_cursor(skb, cursor, &length, sizeof(length)))
		return MORE;
	message->bytes = bpf_ntohs(length);
	left -= LENGTH_BYTES;
	message->present = message->bytes < left ? message->bytes : left;
	message->unsure = stream->order == LOST;
	if (left < wanted_of(message->bytes) && !message->unsure)
		return MORE;
	message->memory = cursor->memory ? cursor->memory + cursor->at + LENGTH_BYTES : 0;
	message->offset = cursor->at + LENGTH_BYTES;
	message->sequence = cursor->zero + cursor->at;
	cursor->step = LENGTH_BYTES + message->bytes; /* maybe beyond the end: what follows is stepped over */
	return FOUND;
}

/* Adds what there is to the message that is being gathered. */
static __always_inline enum turn gather(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
					struct stream *stream, struct part *part)
{
	__u64 gathered = stream->gathered, left = cursor->end - cursor->at;
	__u32 bytes = part->bytes[0] << 8 | part->bytes[1];
	__s64 missing = (gathered < LENGTH_BYTES ? LENGTH_BYTES : LENGTH_BYTES + wanted_of(bytes)) - gathered;

	if (missing > (__s64)left)
		missing = left;
	OPAQUE(missing);
	OPAQUE(gathered);
	if (missing > MESSAGE_BYTES || gathered > LENGTH_BYTES + MESSAGE_BYTES ||
	    (missing > 0 && read_cursor(skb, cursor, part->bytes + gathered, missing)))
		return DONE;
	stream->gathered = gathered += missing;
	cursor->at += missing;
	bytes = part->bytes[0] << 8 | part->bytes[1];
	if (gathered < LENGTH_BYTES || gathered < LENGTH_BYTES + wanted_of(bytes))
		return MORE;
	message->memory = (__u64)(long)part->bytes + LENGTH_BYTES;
	message->bytes = bytes;
	message->present = wanted_of(bytes);
	message->unsure = false;
	message->sequence = cursor->zero + cursor->at;
	stream->gathered = 0;
	cursor->step = bytes - wanted_of(bytes);
	return FOUND;
}

/* The next message at the cursor, or a part of it. */
__noinline int next_message(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
			    struct stream *stream, struct part *part)
{
	if (!message || !cursor || !stream || (__s32)(cursor->end - cursor->at) <= 0)
		return DONE;
	if (!stream->gathered && whole_message(skb, message, cursor, stream) == FOUND)
		return FOUND;
	if (stream->order == LOST)
		return DONE;
	return part ? gather(skb, message, cursor, stream, part) : NO_ROOM;
}

/* Looks at all messages at the cursor. */
__noinline int consume(struct __sk_buff *skb, struct message *message, struct cursor *cursor, struct stream *stream,
		       struct part *part)
{
	if (!message || !cursor || !stream)
		return DONE;
	for (int i = 0; i < MESSAGES_OF_SEGMENT; i++) {
		int turn = next_message(skb, message, cursor, stream, part);

		if (turn == FOUND) {
			if (message_seen(skb, message) && message->unsure)
				return DONE;
			stream->order = IN_ORDER;
			cursor->at += cursor->step;
		} else if (turn != MORE) {
			return turn;
		}
	}
	return DONE;
}

/* Of answers, which questions they belong to is not known any more; of questions, how many they were. */
__noinline int lose_track(struct message *message, struct stream *stream)
{
	if (!message || !stream)
		return 0;
	if (message->from_resolver)
		answer_unread(message->cookie);
	if (stream->order != LOST && message->to_resolver) {
		COUNT(seen);
		COUNT(unread);
	}
	stream->order = LOST;
	stream->gathered = 0;
	return 0;
}

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

static __always_inline struct part *part_of(struct bpf_sock *sk, bool sent, __u64 flags)
{
	struct parts *found = bpf_sk_storage_get(&parts, sk, NULL, flags);

	if (!found)
		return NULL;
	return sent ? &found->sent : &found->received;
}

/* What was held, as far as there is nothing missing before it any more. */
static __always_inline void take_held(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
				      struct bpf_sock *sk, struct stream *stream, struct held *held)
{
	struct part *part = part_of(sk, message->sent, BPF_SK_STORAGE_GET_F_CREATE);

	cursor->memory = (__u64)(long)held->bytes;
	cursor->zero = held->base;
	for (int i = 0; i < HELD_RUNS * HELD_RUNS && held->count; i++) {
		__u32 nth = i % HELD_RUNS, reached = stream->next - held->base;

		if (held->runs[nth].from == held->runs[nth].to || reached < held->runs[nth].from)
			continue;
		cursor->at = reached;
		cursor->end = held->runs[nth].to;
		held->runs[nth].from = held->runs[nth].to = 0;
		held->count--;
		if (reached >= cursor->end)
			continue;
		consume(skb, message, cursor, stream, part);
		if ((__s32)(cursor->end - cursor->at) > 0) {
			lose_track(message, stream);
			forget_held(held);
			return;
		}
		stream->next = held->base + cursor->at;
	}
}

/* What comes at the cursor, whose first byte has this sequence number, in the stream that this CPU has taken. */
static __always_inline void advance(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
				    struct bpf_sock *sk, struct stream *stream, __u32 sequence)
{
	__u32 end = sequence + (cursor->end - cursor->at);

	if (stream->order == NEW)
		begin_stream(sk, stream, sequence, message->sent);
	if ((__s32)(end - stream->next) <= 0) /* sent again, or stepped over */
		return;
	__s32 early = sequence - stream->next;

	if (stream->order == LOST && early > 0)
		early = 0;
	struct held *kept = message->sent ? NULL : bpf_sk_storage_get(&held, sk, NULL, early > 0);

	if (early > 0) {
		if (!kept || hold(skb, cursor, stream, kept)) {
			lose_track(message, stream);
			stream->next = end;
			if (kept)
				forget_held(kept);
		}
		return;
	}
	struct part *part = part_of(sk, message->sent, 0);

	cursor->at -= early;
	if (consume(skb, message, cursor, stream, part) ==
	    NO_ROOM) { /* is made when needed: most messages come whole */
		part = part_of(sk, message->sent, BPF_SK_STORAGE_GET_F_CREATE);
		if (part)
			consume(skb, message, cursor, stream, part);
	}
	if ((__s32)(cursor->end - cursor->at) > 0) {
		lose_track(message, stream);
		stream->next = end;
		return;
	}
	stream->next = end + (cursor->at - cursor->end);
	if (kept && kept->count)
		take_held(skb, message, cursor, sk, stream, kept);
}

/* The payload of a segment, which begins at the offset of the message. */
static __always_inline int read_segment(struct __sk_buff *skb, struct message *message, __u32 sequence)
{
	struct cursor cursor = { .at = message->offset, .end = skb->len, .zero = sequence - message->offset };
	struct bpf_sock *sk = connection(skb);
	struct streams *found = sk ? bpf_sk_storage_get(&streams, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;

	if (!found) { /* of a socket that listens, or no memory: what is there whole is seen */
		struct stream alone = { .order = IN_ORDER };

		consume(skb, message, &cursor, &alone, NULL);
		if ((__s32)(cursor.end - cursor.at) > 0)
			lose_track(message, &alone);
		return 0;
	}
	struct stream *stream = message->sent ? &found->sent : &found->received;

	if (!take_stream(found, stream)) {
		if (message->from_resolver)
			answer_unread(message->cookie);
		return 0;
	}
	advance(skb, message, &cursor, sk, stream, sequence);
	leave_stream(found, stream);
	return 0;
}
