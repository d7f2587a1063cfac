/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Each DNS lookup, as its client and as its server: one event when the answer is there or the time is up.
 *
 *   cgroup_skb/egress     query: asked()      answer: answered()  (we are the server)
 *   cgroup_skb/ingress    query: asked()      answer: answered()  (we are the client)
 *   syscall               sweep(): what nobody answered
 *
 * Why this hook: it sees each datagram once, with its socket, whole (after reassembly, before fragmentation), whatever
 * the system call. On egress the current task is the one that sends; on ingress it is anybody, so that who asks is
 * remembered with the question. A cgroup_skb program may drop packets: both return 1 in one place, on every path. */
#include "kernel.bpf.h"
#include "event.bpf.h"
#include "filter.bpf.h"
#include "dns_packet.bpf.h"
#include "dns_pending.bpf.h"
#include "dns_cursor.bpf.h"
#include "dns_held.bpf.h"
#include "dns_stream.bpf.h"
#include "dns_owner.bpf.h"
#include "dns_event.bpf.h"

/* What the counter needs of lookups that are not told one by one. */
struct throttled_sums {
	__u64 events;
};
#include "throttle.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FLAGS_CODE 0x000f
#define DATAGRAMS 128 /* as many as the kernel takes in one call */

#define TCP_FLAGS_END 14 /* of a header */
#define TCP_SYN 2
#define TCP_ACK 16

static __always_inline void remember_question(struct __sk_buff *skb, const struct message *message,
					      struct pending *entry, __u32 share)
{
	__s64 bytes = message->question_bytes;

	entry->asked.share = share;
	entry->asked.question_type = message->question_type;
	entry->asked.question_class = message->question_class;
	entry->question_hash = message->question;
	__builtin_memcpy(entry->local_address, message->local_address, 16);
	__builtin_memcpy(entry->remote_address, message->remote_address, 16);
	entry->local_port = message->local_port;
	entry->remote_port = message->remote_port;
	entry->sequence = message->sequence;
	entry->family = message->family;
	entry->connected = message->connected;
	entry->asked.question_bytes = bytes;
	OPAQUE(bytes);
	if (bytes > QUESTION_BYTES) /* never: read_name() knows no longer names */
		bytes = QUESTION_BYTES;
	if (bytes > 0)
		read_bytes(skb, message, HEADER_BYTES, entry->question, bytes);
	entry->last_ns = entry->asked.first_ns = bpf_ktime_get_boot_ns();
}

static __always_inline int ask_again(const struct message *message, const struct pending_key *key)
{
	struct pending *entry = bpf_map_lookup_elem(&pending, key);

	/* The same bytes of a stream are no question of their own. */
	if (!entry || (message->sequence && entry->sequence == message->sequence))
		return 0;
	entry->last_ns = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&entry->asked.retries, 1);
	return 0;
}

/* A query: the first begins a lookup, the same again is a retry. */
static __noinline int asked(struct __sk_buff *skb, struct message *message)
{
	/* What is not wanted takes no room from the others, and is not lost where there is none. */
	if (filtered_ends(message->remote_address, message->local_port, message->remote_port)) {
		COUNT(seen);
		COUNT(filtered);
		return 0;
	}
	struct pending_key key = key_of(message);
	bool begins = !alike && bpf_map_update_elem(&pending, &key, &nothing, BPF_NOEXIST) == 0;

	if (!begins && find_again(message, &key) == 0)
		return ask_again(message, &key);
	begins = begins || make_entry(&key) == 0;
	COUNT(seen);
	struct pending *entry = begins ? bpf_map_lookup_elem(&pending, &key) : NULL;

	if (!entry) {
		COUNT(pending_full);
		return 0;
	}
	head_of_asker(skb, message, &entry->asked.head);
	entry->asked.hidden = filtered_owner(&entry->asked.head);
	if (entry->asked.hidden && message->role == CLIENT) { /* another process may answer for a server */
		drop_entry(&key);
		COUNT(filtered);
		return 0;
	}
	__u32 share = slot_of(entry->asked.head.cgroup_id) % SHARES;

	if (shares[share] >= pending_share) {
		drop_entry(&key);
		COUNT(pending_full);
		return 0;
	}
	__sync_fetch_and_add(&shares[share], 1);
	COUNT(pending);
	remember_question(skb, message, entry, share);
	return 0;
}

/* Takes a lookup out of the table and tells it. The one that takes it out does so: of two answers, or of an answer and
 * the sweep. Beyond the rate of its cgroup it is added up; `code` is that of the answer + 1, of a timeout 0. */
static __always_inline void settle(const struct pending_key *key, const struct asked *asked, bool unread,
				   struct bucket *over, struct dns_lookup *event, bool told, __u16 code)
{
	struct throttled_key sums = {
		.cgroup_id = asked->head.cgroup_id,
		.executable = asked->head.executable,
		.error = code,
		.question_type = asked->question_type,
		.kind = code ? ANSWERED : TIMED_OUT,
		.role = key->role,
		.transport = key->transport,
	};
	__u32 share = asked->share, pid = asked->head.pid;
	bool hidden = asked->hidden;
	char comm[16];

	__builtin_memcpy(comm, asked->head.comm, sizeof(comm));
	OPAQUE(told); /* else clang tests `event`, of which the verifier forgets before 6.3 that it is not NULL */
	if (bpf_map_delete_elem(&pending, key)) {
		if (told)
			bpf_ringbuf_discard(event, 0);
		return;
	}
	leave_table(share, key->nth);
	if (told) {
		bpf_ringbuf_submit(event, 0);
	} else if (hidden) {
		COUNT(filtered);
	} else if (unread) {
		COUNT(unread);
	} else if (over) {
		struct throttled *entry = sums_of(over, &sums, pid, comm);

		if (entry)
			__sync_fetch_and_add(&entry->sums.events, 1);
	} else {
		COUNT(ring_full);
	}
}

/* The answer to a question in the table; any other is not a lookup, and -1. */
static __noinline int answered(struct __sk_buff *skb, struct message *message)
{
	struct pending_key key = key_of(message);
	struct pending *entry = bpf_map_lookup_elem(&pending, &key);
	enum fit fit = entry ? fit_of(message, entry) : UNFIT;
	struct dns_lookup *event = NULL;
	bool told = false;

	if (fit != EXACT && (fit != UNFIT || alike)) {
		fit = find_asked(message, &key);
		entry = bpf_map_lookup_elem(&pending, &key);
	}
	if (fit == UNFIT || !entry)
		return -1;
	if (message->role == SERVER)
		note_server(skb, message, &entry->asked);
	__u64 now = bpf_ktime_get_boot_ns();
	struct bucket *over = entry->asked.hidden ? NULL : over_rate(entry->asked.head.cgroup_id, now);

	if (!entry->asked.hidden && !over) {
		event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
		if (event) {
			__builtin_memset(event, 0, offsetof(struct dns_lookup, message));
			tell_answer(message, &entry->asked, now, event);
			if (fit == BARE)
				capture_bare(skb, message, entry, event);
			else
				capture(skb, message, event);
			told = true;
		}
	}
	settle(&key, &entry->asked, false, over, event, told, (message->flags & FLAGS_CODE) + 1);
	return 0;
}

/* -1 when there is no message there that we follow. Not static: so the verifier looks at it once, not for each call
 * and each path to it, which made the load take seconds. */
__noinline int message_seen(struct __sk_buff *skb, struct message *message)
{
	if (!message || read_message(skb, message))
		return -1;
	if (message->flags & FLAG_RESPONSE) {
		message->role = message->sent ? SERVER : CLIENT;
		return message->from_resolver ? answered(skb, message) : -1;
	}
	if (!message->to_resolver || !message->question || (message->unsure && message->present < message->bytes))
		return -1;
	message->role = message->sent ? CLIENT : SERVER;
	return asked(skb, message);
}

__noinline int segment(struct __sk_buff *skb, struct message *message)
{
	struct {
		__be32 ports;
		__be32 sequence;
		__be32 acknowledged;
		__u8 words; /* of the header, in the upper half */
		__u8 flags;
	} tcp;

	if (!message || bpf_skb_load_bytes(skb, message->offset, &tcp, TCP_FLAGS_END))
		return 0;
	message->offset += (tcp.words >> 4) * 4;
	bool has_payload = message->offset < skb->len;
	bool connects = (tcp.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && message->to_resolver;

	if (message->sent && (connects || (has_payload && message->from_resolver)))
		note_owner(skb);
	if (!has_payload)
		return 0;
	if (message->sent ? !message->to_resolver : !message->from_resolver)
		message->cookie = connection_of(skb, message);
	return read_segment(skb, message, bpf_ntohl(tcp.sequence) + !!(tcp.flags & TCP_SYN));
}

struct datagrams {
	struct __sk_buff *skb;
	struct message *message;
	__u32 at;
	__u32 size;
};

static long next_datagram(__u32 nth, struct datagrams *datagrams)
{
	struct message *message = datagrams->message;
	__u32 left = datagrams->skb->len - datagrams->at;

	if ((__s32)left <= 0)
		return 1;
	message->offset = datagrams->at;
	message->bytes = message->present = datagrams->size && datagrams->size < left ? datagrams->size : left;
	message_seen(datagrams->skb, message);
	datagrams->at += message->bytes;
	return 0;
}

/* One message, or several of one size: a program may hand the kernel many at once, and be handed so. */
__noinline int read_datagrams(struct __sk_buff *skb, struct message *message)
{
	struct datagrams datagrams = { skb, message, .size = skb->gso_size };

	if (!message)
		return 0;
	datagrams.at = message->offset + sizeof(struct udphdr);
	if (datagrams.size)
		REPEAT(DATAGRAMS, next_datagram, &datagrams);
	else
		next_datagram(0, &datagrams);
	return 0;
}

#define SENT 1
#define IPV6 2
#define DOCKER 4 /* to its resolver, which is known by its address: NAT has changed the port */

/* A packet from or to a port of ours. `ports` is source << 16 | destination. */
__noinline int packet(struct __sk_buff *skb, __u32 offset, __u32 transport, __u32 ports, __u32 how)
{
	struct message message = {
		.offset = offset,
		.transport = transport,
		.sent = how & SENT,
		.family = how & IPV6 ? 6 : 4,
		.to_resolver = how & DOCKER,
		.from_resolver = is_dns_port(ports >> 16),
	};

	message.cookie = bpf_get_socket_cookie(skb);
	if (!message.sent) {
		message.remote_port = ports >> 16;
		message.local_port = ports;
		read_addresses(skb, how & IPV6, message.remote_address, message.local_address);
	} else if (read_ends_of_socket(skb, &message, how & IPV6)) {
		message.connected = true;
	} else {
		message.remote_port = ports;
		message.local_port = ports >> 16;
		read_addresses(skb, how & IPV6, message.local_address, message.remote_address);
	}
	message.to_resolver |= is_dns_port(message.sent ? message.remote_port : message.local_port);
	return message.transport == IPPROTO_TCP ? segment(skb, &message) : read_datagrams(skb, &message);
}

/* Refuses what is not DNS in a few nanoseconds: this runs for each packet of the machine. */
static __always_inline void look_at(struct __sk_buff *skb, __u32 how)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 offset, transport, ports;
	bool to_docker = false;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data;

		if ((void *)(ip + 1) > end)
			return;
		to_docker = how & SENT && ip->daddr == bpf_htonl(DOCKER_RESOLVER);
		transport = ip->protocol;
		offset = ip->ihl * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data;

		if ((void *)(ip + 1) > end)
			return;
		transport = ip->nexthdr;
		offset = sizeof(*ip);
		how |= IPV6;
		if (transport != IPPROTO_UDP && transport != IPPROTO_TCP) {
			__u32 found = skip_extensions(skb, transport);

			transport = found & 0xff;
			offset = found >> 8 & 0x3fff; /* a bound for the verifier: four extensions are shorter */
		}
	} else {
		return;
	}
	if (transport != IPPROTO_UDP && transport != IPPROTO_TCP)
		return;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + offset + 4 <= end)
		ports = *(__u32 *)(data + offset);
	else if (bpf_skb_load_bytes(skb, offset, &ports, sizeof(ports)))
		return;
	ports = bpf_ntohl(ports);
	if (to_docker && goes_to_resolver(skb, transport))
		how |= DOCKER;
	if (is_dns_port(ports >> 16) || is_dns_port(ports) || how & DOCKER)
		packet(skb, offset, transport, ports, how);
}

SEC("cgroup_skb/egress")
int dns_sent(struct __sk_buff *skb)
{
	look_at(skb, SENT);
	return 1;
}

SEC("cgroup_skb/ingress")
int dns_received(struct __sk_buff *skb)
{
	look_at(skb, 0);
	return 1;
}

static long expire(void *map, struct pending_key *at, struct pending *entry, __u64 *now)
{
	struct pending_key key = *at; /* the entry may be taken out and used again under us */
	struct dns_lookup *event = NULL;
	struct bucket *over = NULL;
	bool told = false;

	if (!entry->asked.first_ns || entry->last_ns + timeout_ns > *now)
		return 0;
	bool unread = maybe_answered(key.cookie, entry->asked.first_ns);

	if (!entry->asked.hidden && !unread) {
		over = over_rate(entry->asked.head.cgroup_id, *now);
		event = over ? NULL : bpf_ringbuf_reserve(&events, sizeof(*event), 0);
		if (event) {
			__builtin_memset(event, 0, offsetof(struct dns_lookup, message));
			tell_timeout(&key, entry, event);
			told = true;
		}
	}
	settle(&key, &entry->asked, unread, over, event, told, 0);
	return 0;
}

/* Run by user space each second. */
SEC("syscall")
int sweep(void *context)
{
	__u64 now = bpf_ktime_get_boot_ns();

	bpf_for_each_map_elem(&pending, expire, &now, 0);
	return 0;
}
