/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The questions that wait for their answers, and which of them an answer belongs to.
 * Include once, after event.bpf.h and dns_packet.bpf.h. */
#pragma once

#define SHARES 4096
#define ALIKE 8 /* questions under way with one id on one socket */
#define CONNECTIONS 4096

/* Questions without an answer that one cgroup may have in the table: a flood must not blind its neighbours. */
const volatile __u32 pending_share = 4096;

/* What an answer without a question still says. What it may lack (the question, after FORMERR) or show otherwise (the
 * resolver, after NAT on this machine) is in the entry; several alike are told apart by `nth`. */
struct pending_key {
	__u64 cookie;
	__u8 remote_address[16]; /* of a client that asks a server here, whose socket serves many */
	__u16 remote_port;
	__u16 id;
	__u8 role;
	__u8 transport;
	__u16 nth;
};

/* What an answer needs of its question. */
struct asked {
	struct event_head head;
	__u64 first_ns; /* 0 while the entry is being filled in */
	__u32 share;
	__u16 question_type;
	__u16 question_class;
	__u16 question_bytes;
	__u32 retries;
	bool hidden; /* by a filter */
};

struct pending {
	struct asked asked;
	__u64 last_ns;
	__u64 question_hash;
	__u8 local_address[16];
	__u8 remote_address[16];
	__u32 sequence;
	__u16 local_port;
	__u16 remote_port;
	__u8 family;
	bool connected;
	__u8 question[QUESTION_BYTES];
};

/* Not an LRU: that would lose a question in silence. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct pending_key);
	__type(value, struct pending);
} pending SEC(".maps");

/* Questions in the table by cgroup. Slots of a hash, never freed: cgroups come and go; two that meet share a share. */
__u32 shares[SHARES];

/* Entries whose `nth` is not 0: while there are none, one look is enough. */
__u32 alike;

/* When an answer went by that could not be read or could not be told to whom it belongs, by socket: what was asked
 * there before and has no answer is not a timeout for sure. Slots of a hash, like the shares. */
__u64 unread_ns[CONNECTIONS];

/* An entry is too large for the stack: this one is inserted, then filled in place. */
const struct pending nothing = {};

static __always_inline __u32 slot_of(__u64 number)
{
	return (number * 0x9e3779b97f4a7c15ULL) >> 52;
}

static __always_inline void answer_unread(__u64 cookie)
{
	unread_ns[slot_of(cookie) % CONNECTIONS] = bpf_ktime_get_boot_ns();
}

static __always_inline bool maybe_answered(__u64 cookie, __u64 asked_ns)
{
	return unread_ns[slot_of(cookie) % CONNECTIONS] >= asked_ns;
}

static __always_inline void leave_table(__u32 share, __u16 nth)
{
	__sync_fetch_and_add(&shares[share % SHARES], -1);
	__sync_fetch_and_add(&event_counts.pending, -1);
	if (nth)
		__sync_fetch_and_add(&alike, -1);
}

static __always_inline struct pending_key key_of(const struct message *message)
{
	struct pending_key key = {
		.cookie = message->cookie,
		.id = message->id,
		.role = message->role,
		.transport = message->transport,
	};

	if (message->role == SERVER) {
		__builtin_memcpy(key.remote_address, message->remote_address, 16);
		key.remote_port = message->remote_port;
	}
	return key;
}

static __always_inline bool same_address(const __u8 one[16], const __u8 other[16])
{
	const __u64 *a = (const __u64 *)one, *b = (const __u64 *)other;

	return a[0] == b[0] && a[1] == b[1];
}

static __always_inline bool same_remote(const struct message *message, const struct pending *entry)
{
	return message->remote_port == entry->remote_port &&
	       same_address(message->remote_address, entry->remote_address);
}

/* Looks for the entry of the same question to the same resolver, as a retry finds it, and sets `nth`; -1 without one.
 * The searches are not static, so that the verifier looks at them once; they give no pointer, so the caller looks up. */
__noinline int find_again(struct message *message, struct pending_key *key)
{
	if (!message || !key)
		return -1;
	struct pending_key at = *key; /* before 6.2 a key of a map may be no argument's memory */

	for (__u16 i = 0; i < ALIKE; i++) { /* the verifier does not follow a count in memory */
		at.nth = i;
		struct pending *entry = bpf_map_lookup_elem(&pending, &at);

		if (entry && entry->question_hash == message->question && same_remote(message, entry)) {
			key->nth = i;
			return 0;
		}
	}
	return -1;
}

/* Makes room for a question that is not in the table, and sets `nth`; -1 without room. */
__noinline int make_entry(struct pending_key *key)
{
	if (!key)
		return -1;
	struct pending_key at = *key;

	for (__u16 i = 0; i < ALIKE; i++) {
		at.nth = i;
		if (bpf_map_update_elem(&pending, &at, &nothing, BPF_NOEXIST) == 0) {
			key->nth = i;
			if (i)
				__sync_fetch_and_add(&alike, 1);
			return 0;
		}
	}
	return -1;
}

/* Takes out an entry that has not been counted. */
static __always_inline void drop_entry(const struct pending_key *key)
{
	bpf_map_delete_elem(&pending, key);
	if (key->nth)
		__sync_fetch_and_add(&alike, -1);
}

/* How well an answer fits a question that has its id and socket. */
enum fit {
	UNFIT,
	NEITHER,    /* no question in it, and another address than that which was asked */
	BARE,       /* no question in it that can be read: FORMERR, REFUSED, NOTIMP may come so */
	TRANSLATED, /* from another address: NAT on this machine, which shows the query as it leaves, or a multicast */
	EXACT,
};

static __always_inline enum fit fit_of(const struct message *answer, const struct pending *entry)
{
	if (!entry->asked.first_ns)
		return UNFIT;
	bool same = same_remote(answer, entry);

	if (answer->question && answer->question != entry->question_hash)
		return UNFIT;
	if (!same && (entry->connected || answer->role == SERVER || answer->transport != IPPROTO_UDP))
		return UNFIT;
	if (!answer->question)
		return same ? BARE : NEITHER;
	return same ? EXACT : TRANSLATED;
}

/* Looks for the entry that an answer belongs to, and sets `nth`; UNFIT when there is none, or when it cannot be said
 * which, which is noted. The fits are in memory, whose content the verifier does not follow: it would look at each
 * combination of them. */
__noinline int find_asked(struct message *answer, struct pending_key *key)
{
	if (!answer || !key)
		return UNFIT;
	struct pending_key at = *key;

	answer->fits = 0;
	for (__u32 i = 0; i < ALIKE; i++) {
		at.nth = i;
		struct pending *entry = bpf_map_lookup_elem(&pending, &at);

		if (entry)
			*(volatile __u64 *)&answer->fits |= 1ULL << fit_of(answer, entry) << i * 8;
	}
	for (int fit = EXACT; fit > UNFIT; fit--) {
		__u64 found = answer->fits >> fit & EACH_BYTE(1);
		__u64 first = found & -found;

		if (!found)
			continue;
		key->nth = (first * 0x0001020304050607ULL) >> 56;
		if (fit != NEITHER && first == found)
			return fit;
		answer_unread(answer->cookie);
		/* Of several that NAT hides, each was asked the same and answers with its own address: any will do. */
		return fit == TRANSLATED || fit == EXACT ? fit : UNFIT;
	}
	return UNFIT;
}
