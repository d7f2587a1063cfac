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

/* What the counter needs of lookups that are not told one by one. */
struct throttled_sums {
	__u64 events;
};
#include "throttle.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MESSAGE_BYTES 512
#define PIPELINED 8 /* messages looked for in one TCP segment */
#define SHARES 4096

#define FLAG_RECURSION_DESIRED 0x0100
#define FLAGS_CODE 0x000f

enum kind { ANSWERED = 1, TIMED_OUT = 2 };

const volatile __u64 timeout_ns = 5000000000;
/* Questions without an answer that one cgroup may have in the table: a flood must not blind its neighbours. */
const volatile __u32 pending_share = 4096;

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

/* What an answer needs of its question. */
struct asked {
	struct event_head head;
	__u64 first_ns; /* 0 while the entry is being filled in */
	__u32 share;
	__u16 question_type;
	__u16 question_class;
	__u32 retries;
	bool hidden; /* by a filter */
};

struct pending {
	struct asked asked;
	__u64 last_ns;
	__u8 local_address[16];
	__u16 local_port;
	__u16 question_bytes;
	__u8 family;
	__u8 question[QUESTION_BYTES];
};

/* Not an LRU: that would lose a question in silence. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct pending_key);
	__type(value, struct pending);
} pending SEC(".maps");

/* Who connected to a resolver, who answered last on a server's socket: known before the packet that needs it, whose
 * own context is a softirq. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct event_head);
} owners SEC(".maps");

/* Questions in the table by cgroup. Slots of a hash, never freed: cgroups come and go; two that meet share a share. */
__u32 shares[SHARES];

/* An entry is too large for the stack: this one is inserted, then filled in place. */
const struct pending nothing = {};

static __always_inline struct event_head *owner_of(struct __sk_buff *skb, __u64 flags)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	return sk ? bpf_sk_storage_get(&owners, sk, NULL, flags) : NULL;
}

static __always_inline __u32 share_of(__u64 cgroup_id)
{
	return (cgroup_id * 0x9e3779b97f4a7c15ULL) >> 52;
}

static __always_inline void leave_table(__u32 share)
{
	__sync_fetch_and_add(&shares[share % SHARES], -1);
	__sync_fetch_and_add(&event_counts.pending, -1);
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
	bool is_client = message->key.role == CLIENT;
	struct event_head *owner = is_client && message->key.transport == IPPROTO_UDP ? NULL : owner_of(skb, 0);

	if (owner)
		*head = *owner;
	else if (is_client)
		who_runs(head);
	else
		head->cgroup_id = bpf_skb_cgroup_id(skb);
}

static __always_inline void remember_question(struct __sk_buff *skb, const struct message *message,
					      const struct event_head *asker, struct pending *entry, __u32 share,
					      __u64 now)
{
	__u64 bytes = message->question_bytes;

	entry->asked.head = *asker;
	entry->asked.share = share;
	entry->asked.question_type = message->question_type;
	entry->asked.question_class = message->question_class;
	__builtin_memcpy(entry->local_address, message->local_address, 16);
	entry->local_port = message->local_port;
	entry->family = message->family;
	entry->question_bytes = bytes;
	OPAQUE(bytes);
	if (bytes > 0 && bytes <= QUESTION_BYTES)
		bpf_skb_load_bytes(skb, message->offset + HEADER_BYTES, entry->question, bytes);
	entry->last_ns = now;
	entry->asked.first_ns = now;
}

/* A query: the first begins a lookup, the same again is a retry. */
static __noinline int asked(struct __sk_buff *skb, struct message *message)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct event_head asker = {};

	head_of_asker(skb, message, &asker);
	bool hidden = filtered_owner(&asker); /* of a server: unless another process answers */

	/* Takes no room from those that are wanted, and is not lost where there is none. */
	if ((hidden && message->key.role == CLIENT) ||
	    filtered_ends(message->key.remote_address, message->local_port, message->key.remote_port)) {
		COUNT(seen);
		COUNT(filtered);
		return 0;
	}
	__u32 share = share_of(asker.cgroup_id) % SHARES;
	bool room = shares[share] < pending_share;
	bool begins = room && bpf_map_update_elem(&pending, &message->key, &nothing, BPF_NOEXIST) == 0;
	struct pending *entry = bpf_map_lookup_elem(&pending, &message->key);

	if (entry && !begins) {
		entry->last_ns = now;
		__sync_fetch_and_add(&entry->asked.retries, 1);
		return 0;
	}
	COUNT(seen);
	if (!entry) { /* also when another CPU took it out just now, with its count */
		COUNT(pending_full);
		return 0;
	}
	__sync_fetch_and_add(&shares[share], 1);
	COUNT(pending);
	entry->asked.hidden = hidden;
	remember_question(skb, message, &asker, entry, share, now);
	return 0;
}

/* For a lookup beyond the rate of its cgroup. `code` is that of the answer + 1; of a timeout 0. */
static __always_inline void add_up(struct bucket *over, const struct asked *asked, const struct pending_key *about,
				   __u8 kind, __u16 code)
{
	struct throttled_key key = {
		.cgroup_id = asked->head.cgroup_id,
		.executable = asked->head.executable,
		.error = code,
		.question_type = asked->question_type,
		.kind = kind,
		.role = about->role,
		.transport = about->transport,
	};
	struct throttled *entry = sums_of(over, &key, asked->head.pid, asked->head.comm);

	if (entry)
		__sync_fetch_and_add(&entry->sums.events, 1);
}

static __always_inline void capture(struct __sk_buff *skb, const struct message *message, struct dns_lookup *event)
{
	__u64 bytes = message->present;

	OPAQUE(bytes);
	if (bytes > MESSAGE_BYTES)
		bytes = MESSAGE_BYTES;
	if (bytes > 0 && bpf_skb_load_bytes(skb, message->offset, event->message, bytes) == 0)
		event->captured_bytes = bytes;
}

/* The answer to a question in the table; any other is not a lookup. */
static __noinline int answered(struct __sk_buff *skb, struct message *message)
{
	struct pending *entry = bpf_map_lookup_elem(&pending, &message->key);

	if (!entry || !entry->asked.first_ns) /* not asked, or the entry is being filled in */
		return 0;
	struct asked asked = entry->asked;

	/* The one that takes it out tells it: not a second answer, not the sweep. */
	if (bpf_map_delete_elem(&pending, &message->key))
		return 0;
	leave_table(asked.share);
	if (message->key.role == SERVER) {
		struct event_head *owner = owner_of(skb, BPF_SK_STORAGE_GET_F_CREATE);

		who_runs(&asked.head);
		asked.hidden = filtered(&asked.head, message->key.remote_address, message->local_port,
					message->key.remote_port);
		if (owner)
			*owner = asked.head;
	}
	asked.head.time_ns = bpf_ktime_get_boot_ns();
	if (asked.hidden) {
		COUNT(filtered);
		return 0;
	}
	struct bucket *over = over_rate(asked.head.cgroup_id, asked.head.time_ns);

	if (over) {
		add_up(over, &asked, &message->key, ANSWERED, (message->flags & FLAGS_CODE) + 1);
		return 0;
	}
	struct dns_lookup *event = event_reserve(sizeof(*event), offsetof(struct dns_lookup, message));

	if (!event)
		return 0;
	event->head = asked.head;
	event->latency_ns = asked.head.time_ns - asked.first_ns;
	__builtin_memcpy(event->local_address, message->local_address, 16);
	__builtin_memcpy(event->remote_address, message->key.remote_address, 16);
	event->local_port = message->local_port;
	event->remote_port = message->key.remote_port;
	event->id = message->key.id;
	event->flags = message->flags;
	event->question_type = asked.question_type;
	event->question_class = asked.question_class;
	event->answer_count = message->answers;
	event->message_bytes = message->bytes;
	event->family = message->family;
	event->transport = message->key.transport;
	event->role = message->key.role;
	event->kind = ANSWERED;
	event->retries = asked.retries > 255 ? 255 : asked.retries;
	capture(skb, message, event);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* -1 when there is no message there that we follow. Not static: so the verifier looks at it once, not for each call
 * and each path to it, which made the load take seconds. */
__noinline int message_seen(struct __sk_buff *skb, struct message *message)
{
	if (!message || read_question(skb, message))
		return -1;
	if (message->flags & FLAG_RESPONSE) {
		message->key.role = message->sent ? SERVER : CLIENT;
		return message->from_resolver ? answered(skb, message) : -1;
	}
	if (!message->to_resolver || message->present < message->bytes)
		return -1;
	message->key.role = message->sent ? CLIENT : SERVER;
	return asked(skb, message);
}

/* Over TCP a message has its length before it, which may come in a segment of its own; a client may send several
 * questions at once; a large answer goes on in segments that are not looked at. */
static __noinline int segment(struct __sk_buff *skb, struct message *message, __u32 offset)
{
	struct tcphdr tcp;
	__be16 length;

	if (bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
		return 0;
	if (tcp.syn && !tcp.ack && message->sent && message->to_resolver) {
		struct event_head *owner = owner_of(skb, BPF_SK_STORAGE_GET_F_CREATE);

		if (owner && !owner->time_ns) /* a SYN sent again is sent by a softirq */
			who_runs(owner);
	}
	offset += tcp.doff * 4;
	if (offset + 2 > skb->len || is_repeated(skb, bpf_ntohl(tcp.seq) + tcp.syn, message->sent))
		return 0;
	for (int i = 0; i < PIPELINED; i++) {
		if (bpf_skb_load_bytes(skb, offset, &length, sizeof(length)))
			return 0;
		__u32 left = skb->len - offset - 2;

		message->offset = offset + 2;
		message->bytes = bpf_ntohs(length);
		message->present = message->bytes < left ? message->bytes : left;
		if (message_seen(skb, message)) {
			if (i > 0)
				return 0;
			message->offset = offset;
			message->bytes = left + 2;
			message->present = left + 2;
			return message_seen(skb, message);
		}
		offset += 2 + message->bytes;
	}
	return 0;
}

#define SENT 1
#define IPV6 2

/* A packet from or to a port of ours. `ports` is source << 16 | destination. */
__noinline int packet(struct __sk_buff *skb, __u32 offset, __u32 transport, __u32 ports, __u32 how)
{
	struct message message = {};
	__u16 source = ports >> 16, destination = ports;

	message.sent = how & SENT;
	message.family = how & IPV6 ? 6 : 4;
	message.key.cookie = bpf_get_socket_cookie(skb);
	message.key.transport = transport;
	if (!message.sent) {
		message.key.remote_port = source;
		message.local_port = destination;
		read_addresses(skb, how & IPV6, message.key.remote_address, message.local_address);
	} else if (!read_ends_of_socket(skb, &message, how & IPV6)) {
		message.key.remote_port = destination;
		message.local_port = source;
		read_addresses(skb, how & IPV6, message.local_address, message.key.remote_address);
	}
	message.to_resolver = is_dns_port(message.sent ? message.key.remote_port : destination);
	message.from_resolver = is_dns_port(source);
	if (transport == IPPROTO_TCP)
		return segment(skb, &message, offset);
	message.offset = offset + sizeof(struct udphdr);
	if (message.offset >= skb->len)
		return 0;
	message.bytes = message.present = skb->len - message.offset;
	return message_seen(skb, &message);
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
	if (is_dns_port(ports >> 16) || is_dns_port(ports) || (to_docker && is_connected_to_resolver(skb)))
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

/* The question as a message of its own, so that whoever reads answers can read it. */
static __always_inline void capture_question(const struct pending_key *key, const struct pending *entry,
					     struct dns_lookup *event)
{
	__u64 bytes = entry->question_bytes;
	__be16 header[HEADER_BYTES / 2] = { bpf_htons(key->id), bpf_htons(FLAG_RECURSION_DESIRED), bpf_htons(1) };

	OPAQUE(bytes);
	if (bytes == 0 || bytes > QUESTION_BYTES)
		return;
	__builtin_memcpy(event->message, header, HEADER_BYTES);
	bpf_probe_read_kernel(event->message + HEADER_BYTES, bytes, entry->question);
	event->captured_bytes = event->message_bytes = HEADER_BYTES + bytes;
}

static __always_inline void tell_timeout(const struct pending_key *key, const struct pending *entry,
					 struct dns_lookup *event)
{
	event->head = entry->asked.head;
	event->head.time_ns = entry->last_ns + timeout_ns;
	event->latency_ns = event->head.time_ns - entry->asked.first_ns;
	__builtin_memcpy(event->local_address, entry->local_address, 16);
	__builtin_memcpy(event->remote_address, key->remote_address, 16);
	event->local_port = entry->local_port;
	event->remote_port = key->remote_port;
	event->id = key->id;
	event->question_type = entry->asked.question_type;
	event->question_class = entry->asked.question_class;
	event->family = entry->family;
	event->transport = key->transport;
	event->role = key->role;
	event->kind = TIMED_OUT;
	event->retries = entry->asked.retries > 255 ? 255 : entry->asked.retries;
	capture_question(key, entry, event);
}

static long expire(void *map, struct pending_key *at, struct pending *entry, __u64 *now)
{
	struct pending_key key = *at; /* the entry may be taken out and used again under us */
	struct asked asked = entry->asked;
	struct dns_lookup *event = NULL;
	struct bucket *over = NULL;

	if (!asked.first_ns || entry->last_ns + timeout_ns > *now)
		return 0;
	if (!asked.hidden)
		over = over_rate(asked.head.cgroup_id, *now);
	if (!asked.hidden && !over) {
		event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
		if (event) {
			__builtin_memset(event, 0, offsetof(struct dns_lookup, message));
			tell_timeout(&key, entry, event);
		}
	}
	if (bpf_map_delete_elem(&pending, &key)) { /* answered meanwhile: that is told */
		if (event)
			bpf_ringbuf_discard(event, 0);
		return 0;
	}
	leave_table(asked.share);
	if (event)
		bpf_ringbuf_submit(event, 0);
	else if (asked.hidden)
		COUNT(filtered);
	else if (over)
		add_up(over, &asked, &key, TIMED_OUT, 0);
	else
		COUNT(ring_full);
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
