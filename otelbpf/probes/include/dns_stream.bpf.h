/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* DNS over TCP: a stream that may be cut anywhere, sent again, or come in another order, put in order for the cursor.
 * Include once, after dns_pending.bpf.h, dns_cursor.bpf.h and dns_held.bpf.h. */
#pragma once

#define TURNS 4   /* of waiting for another CPU, which has the stream for a microsecond or two */
#define LOOKS 128 /* of one turn */
#define TCP_LISTENING 10

struct streams {
	struct bpf_spin_lock lock; /* of `taken` alone: nothing may be called under it */
	struct stream received;
	struct stream sent;
};

struct parts {
	struct part received;
	struct part sent;
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

/* Of answers, which questions they belong to is not known any more; of questions, how many they were. */
static __always_inline void segment_unread(const struct message *message, bool first)
{
	if (message->from_resolver)
		answer_unread(message->cookie);
	if (message->to_resolver && first) {
		COUNT(seen);
		COUNT(unread);
	}
}

__noinline int lose_track(struct message *message, struct stream *stream)
{
	if (!message || !stream)
		return 0;
	segment_unread(message, stream->order != LOST);
	stream->order = LOST;
	stream->gathered = 0;
	return 0;
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
		segment_unread(message, true);
		return 0;
	}
	advance(skb, message, &cursor, sk, stream, sequence);
	leave_stream(found, stream);
	return 0;
}
