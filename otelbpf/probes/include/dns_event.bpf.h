/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The event of a DNS lookup, and how it is filled in: of an answer, and of what nobody answered.
 * Include once, after event.bpf.h, dns_packet.bpf.h and dns_pending.bpf.h. */
#pragma once

#define FLAG_RECURSION_DESIRED 0x0100

enum kind { ANSWERED = 1, TIMED_OUT = 2 };

const volatile __u64 timeout_ns = 5000000000;

struct dns_lookup {
	struct event_head head; /* client: who asks; server: who answers */
	__u64 latency_ns;       /* from the first query; of a timeout: what was waited */
	__u8 local_address[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 remote_address[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 id;
	__u16 flags; /* of the answer's header; 0 = timeout */
	__u16 question_type;
	__u16 question_class;
	__u16 answer_count;
	__u16 message_bytes; /* the whole message */
	__u16 captured_bytes;
	__u8 family;    /* 4 or 6; mapped is 4 */
	__u8 transport; /* IPPROTO_UDP or IPPROTO_TCP */
	__u8 role;
	__u8 kind;
	__u8 retries;
	__u8 message[MESSAGE_BYTES]; /* the answer from its header on; of a timeout: the question */
};
EVENT(dns_lookup);

static __always_inline void capture(struct __sk_buff *skb, const struct message *message, struct dns_lookup *event)
{
	__s64 bytes = message->present;

	OPAQUE(bytes);
	if (bytes > MESSAGE_BYTES)
		bytes = MESSAGE_BYTES;
	if (bytes > 0 && read_bytes(skb, message, 0, event->message, bytes) == 0)
		event->captured_bytes = bytes;
	event->message_bytes = message->bytes;
}

/* A message of this header and the question of the table, so that whoever reads answers can read it. */
static __always_inline void capture_question(const struct pending *entry, const __be16 header[HEADER_BYTES / 2],
					     struct dns_lookup *event)
{
	__u64 bytes = entry->asked.question_bytes;

	OPAQUE(bytes);
	if (bytes == 0 || bytes > QUESTION_BYTES)
		return;
	__builtin_memcpy(event->message, header, HEADER_BYTES);
	bpf_probe_read_kernel(event->message + HEADER_BYTES, bytes, entry->question);
	event->captured_bytes = event->message_bytes = HEADER_BYTES + bytes;
}

/* An answer without a question, or with one that cannot be read: the question as it was asked, and what the answer
 * says behind its own place for it (EDNS and the code in it, mostly). */
static __always_inline void capture_bare(struct __sk_buff *skb, const struct message *message,
					 const struct pending *entry, struct dns_lookup *event)
{
	__be16 header[HEADER_BYTES / 2] = { bpf_htons(message->id), bpf_htons(message->flags), bpf_htons(1) };
	bool follows = !message->questions && message->present > HEADER_BYTES;

	if (follows)
		read_bytes(skb, message, 6, &header[3], 6);
	capture_question(entry, header, event);
	if (!follows)
		return;
	__u64 at = event->captured_bytes;
	__s64 bytes = message->present - HEADER_BYTES;

	OPAQUE(at);
	OPAQUE(bytes);
	if (bytes > MESSAGE_BYTES - HEADER_BYTES - QUESTION_BYTES)
		bytes = MESSAGE_BYTES - HEADER_BYTES - QUESTION_BYTES;
	if (at == 0 || at > HEADER_BYTES + QUESTION_BYTES || bytes <= 0 ||
	    read_bytes(skb, message, HEADER_BYTES, event->message + at, bytes))
		return;
	event->captured_bytes = at + bytes;
	event->message_bytes = at + message->bytes - HEADER_BYTES;
}

static __always_inline void tell_answer(const struct message *message, const struct asked *asked, __u64 now,
					struct dns_lookup *event)
{
	event->head = asked->head;
	event->head.time_ns = now;
	event->latency_ns = now - asked->first_ns;
	__builtin_memcpy(event->local_address, message->local_address, 16);
	__builtin_memcpy(event->remote_address, message->remote_address, 16);
	event->local_port = message->local_port;
	event->remote_port = message->remote_port;
	event->id = message->id;
	event->flags = message->flags;
	event->question_type = asked->question_type;
	event->question_class = asked->question_class;
	event->answer_count = message->answers;
	event->family = message->family;
	event->transport = message->transport;
	event->role = message->role;
	event->kind = ANSWERED;
	event->retries = asked->retries > 255 ? 255 : asked->retries;
}

static __always_inline void tell_timeout(const struct pending_key *key, const struct pending *entry,
					 struct dns_lookup *event)
{
	__be16 header[HEADER_BYTES / 2] = { bpf_htons(key->id), bpf_htons(FLAG_RECURSION_DESIRED), bpf_htons(1) };

	event->head = entry->asked.head;
	event->head.time_ns = entry->last_ns + timeout_ns;
	event->latency_ns = event->head.time_ns - entry->asked.first_ns;
	__builtin_memcpy(event->local_address, entry->local_address, 16);
	__builtin_memcpy(event->remote_address, entry->remote_address, 16);
	event->local_port = entry->local_port;
	event->remote_port = entry->remote_port;
	event->id = key->id;
	event->question_type = entry->asked.question_type;
	event->question_class = entry->asked.question_class;
	event->family = entry->family;
	event->transport = key->transport;
	event->role = key->role;
	event->kind = TIMED_OUT;
	event->retries = entry->asked.retries > 255 ? 255 : entry->asked.retries;
	capture_question(entry, header, event);
}
