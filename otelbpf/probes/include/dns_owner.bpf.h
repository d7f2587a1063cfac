/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose lookup it is: of a packet, the program that sends it or the one that its socket remembers.
 * Include once, after filter.bpf.h, dns_packet.bpf.h and dns_pending.bpf.h. */
#pragma once

/* Who connected to a resolver, who answered last on a server's socket: known before the packet that needs it, whose
 * own context is a softirq. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct event_head);
} owners SEC(".maps");

static __always_inline struct event_head *owner_of(struct __sk_buff *skb, __u64 flags)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	return sk ? bpf_sk_storage_get(&owners, sk, NULL, flags) : NULL;
}

/* Verified once for all its callers: the verifier searches the kernel's types for each pointer that is followed there,
 * which costs a millisecond of the start each time. */
__noinline int who_runs(struct event_head *head)
{
	if (head)
		head_of_current(head);
	return 0;
}

/* Who asks: on egress the current task, over TCP the one that connected (a segment may be sent by a softirq later).
 * For a server the one that answered last on this socket, until the answer says it. */
static __always_inline void head_of_asker(struct __sk_buff *skb, const struct message *message, struct event_head *head)
{
	bool is_client = message->role == CLIENT;
	struct event_head *owner = is_client && message->transport == IPPROTO_UDP ? NULL : owner_of(skb, 0);

	if (owner)
		*head = *owner;
	else if (is_client)
		who_runs(head);
	else
		head->cgroup_id = bpf_skb_cgroup_id(skb);
}

/* For a server, who answers is known now: over UDP who sends, over TCP who sent first. */
static __always_inline void note_server(struct __sk_buff *skb, const struct message *message, struct asked *asked)
{
	struct event_head *owner = owner_of(skb, BPF_SK_STORAGE_GET_F_CREATE);

	if (owner && owner->time_ns && message->transport == IPPROTO_TCP) {
		asked->head = *owner;
	} else {
		who_runs(&asked->head);
		if (owner)
			*owner = asked->head;
	}
	asked->hidden = filtered(&asked->head, message->remote_address, message->local_port, message->remote_port);
}

/* Who connects, or who answers first: a program's own act, which later segments need not be. */
static __always_inline void note_owner(struct __sk_buff *skb)
{
	struct event_head *owner = owner_of(skb, BPF_SK_STORAGE_GET_F_CREATE);

	if (owner && !owner->time_ns) /* a SYN sent again is sent by a softirq */
		who_runs(owner);
}
