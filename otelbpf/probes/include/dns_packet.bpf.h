/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* DNS in a packet: which ports, which ends, where the message lies, what it asks. Nothing here remembers anything.
 * Include once, after kernel.bpf.h. */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define HEADER_BYTES 12
#define QUESTION_BYTES 264 /* a name of 255, type and class; whole words */
#define NAME_BYTES 255
#define MESSAGE_BYTES 512 /* of a message that are told */

#define FLAG_RESPONSE 0x8000
#define FLAGS_OPCODE 0x7800

enum role { CLIENT = 1, SERVER = 2 };

/* Four ports a knob, the first in the lowest bits; 0 is no port. */
const volatile __u64 dns_ports_0 = 53;
const volatile __u64 dns_ports_1 = 0;
const volatile __u64 dns_ports_2 = 0;
const volatile __u64 dns_ports_3 = 0;

/* A message where it lies, and its end points. */
struct message {
	__u64 cookie;   /* of the socket; of a TCP server's, what stands for the connection */
	__u64 question; /* hash of the name in lower case, type and class; 0 = there is none that can be read */
	__u64 memory;   /* where the message lies when it was gathered from several segments; 0 = in the packet */
	__u64 fits;     /* how well it fits each question that it may answer: a byte each, a bit each way */
	__u8 remote_address[16];
	__u8 local_address[16];
	__u32 offset; /* of its header in the packet */
	__u32 bytes;
	__u32 present;  /* in this packet */
	__u32 sequence; /* of the segment that it is in; 0 over UDP */
	__u16 remote_port;
	__u16 local_port;
	__u16 id;
	__u16 flags;
	__u16 questions;
	__u16 answers;
	__u16 question_type;
	__u16 question_class;
	__u16 question_bytes;
	__u8 family;
	__u8 transport;
	__u8 role;
	bool sent;
	bool connected;
	bool to_resolver;
	bool from_resolver;
	bool unsure; /* whether a message begins here at all */
};

/* Stops clang from deriving the bound of a length from what it knows: the verifier does not. A length that must not be
 * zero is compared as a signed number: before 6.8 the verifier learns nothing of `!= 0`. */
#define OPAQUE(value) asm volatile("" : "+r"(value))

#define EACH_BYTE(byte) (0x0101010101010101ULL * (byte))

/* `bytes` of the message from `at` on; not 0 when there are not so many. */
static __always_inline long read_bytes(struct __sk_buff *skb, const struct message *message, __u32 at, void *to,
				       __u64 bytes)
{
	if (message->memory)
		return bpf_probe_read_kernel(to, bytes, (void *)(message->memory + at));
	return bpf_skb_load_bytes(skb, message->offset + at, to, bytes);
}

#define CHUNK_BYTES 64
#define CHUNKS 4        /* hold a name of 255 bytes, with the zero at its end */
#define CHUNK_LABELS 32 /* the shortest have two bytes */
#define LABEL_BYTES 63

struct chunk {
	__u64 words[CHUNK_BYTES / 8];
};

/* Functions that are not static are verified once, not for each path that leads to them.
 * Follows the labels of a name through the part of it that begins at `base`. `at` is where the next label begins, from
 * the beginning of the name. Returns the bytes of the name when it ends here, else 0; < 0 when it is none. */
__noinline int follow_labels(struct chunk *chunk, __u32 base, __u32 *at)
{
	const __u8 *bytes = (const __u8 *)chunk;

	if (!chunk || !at)
		return -1;

	for (int i = 0; i < CHUNK_LABELS; i++) {
		__u32 here = *at - base;

		OPAQUE(here);
		if (here >= CHUNK_BYTES)
			return 0;
		__u8 length = bytes[here];

		if (!length)
			return *at + 1;
		if (length > LABEL_BYTES)
			return -1;
		*at += length + 1;
	}
	return 0;
}

/* In lower case, as answers may have another. `end` bytes of the chunk belong to the name. */
__noinline __u64 hash_chunk(__u64 hash, struct chunk *chunk, __u32 end)
{
	if (!chunk)
		return 0;
	for (__u32 i = 0; i < CHUNK_BYTES / 8 && i * 8 < end; i++) {
		__u64 word = chunk->words[i];
		__u32 left = end - i * 8;

		if (left < 8)
			word &= (1ULL << left * 8) - 1;
		hash = (hash ^ (word | EACH_BYTE(0x20))) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	return hash;
}

/* Where the name at the beginning of the questions ends, and its hash; not more than 0 when it is none. By pieces: a
 * whole name on the stack would be half of the stack. */
__noinline int read_name(struct __sk_buff *skb, struct message *message)
{
	__u32 at = 0;

	if (!message)
		return 0;
	for (__u32 i = 0; i < CHUNKS; i++) {
		struct chunk chunk = {};
		__u32 base = i * CHUNK_BYTES;

		if (message->present <= HEADER_BYTES + base)
			return 0;
		__s64 bytes = message->present - HEADER_BYTES - base;

		OPAQUE(bytes);
		if (bytes > CHUNK_BYTES)
			bytes = CHUNK_BYTES;
		if (bytes <= 0 || read_bytes(skb, message, HEADER_BYTES + base, &chunk, bytes))
			return 0;
		int end = follow_labels(&chunk, base, &at);

		if (end < 0 || end > NAME_BYTES)
			return 0;
		message->question = hash_chunk(message->question, &chunk, end > 0 ? end - base : CHUNK_BYTES);
		if (end > 0)
			return end;
	}
	return 0;
}

static __always_inline void read_question(struct __sk_buff *skb, struct message *message)
{
	__u8 tail[4];

	message->question = message->question_bytes = 0;
	if (message->questions != 1)
		return;
	int name_bytes = read_name(skb, message);

	if (name_bytes <= 0 || message->present < HEADER_BYTES + name_bytes + sizeof(tail) ||
	    read_bytes(skb, message, HEADER_BYTES + name_bytes, tail, sizeof(tail))) {
		message->question = 0;
		return;
	}
	message->question_type = tail[0] << 8 | tail[1];
	message->question_class = tail[2] << 8 | tail[3];
	message->question_bytes = name_bytes + sizeof(tail);
	message->question ^= (__u64)message->question_type << 16 | message->question_class;
	message->question += !message->question; /* 0 says that there is none */
}

/* -1 when it is no message of a kind that we follow. */
static __always_inline int read_message(struct __sk_buff *skb, struct message *message)
{
	__be16 header[HEADER_BYTES / 2];

	if (message->present < HEADER_BYTES || read_bytes(skb, message, 0, header, HEADER_BYTES))
		return -1;
	message->id = bpf_ntohs(header[0]);
	message->flags = bpf_ntohs(header[1]);
	message->questions = bpf_ntohs(header[2]);
	message->answers = bpf_ntohs(header[3]);
	if (message->flags & FLAGS_OPCODE)
		return -1;
	read_question(skb, message);
	return 0;
}

/* The verifier knows the knobs and takes out what cannot be: with one port, one comparison is left. */
static __always_inline bool is_among(__u16 port, __u64 ports)
{
	return port == (__u16)ports ||
	       (ports >> 16 && (port == (__u16)(ports >> 16) || port == (__u16)(ports >> 32) || port == ports >> 48));
}

static __always_inline bool is_dns_port(__u16 port)
{
	return is_among(port, dns_ports_0) || (dns_ports_1 && is_among(port, dns_ports_1)) ||
	       (dns_ports_2 && is_among(port, dns_ports_2)) || (dns_ports_3 && is_among(port, dns_ports_3));
}

static __always_inline void read_addresses(struct __sk_buff *skb, bool v6, __u8 source[16], __u8 destination[16])
{
	if (v6) {
		bpf_skb_load_bytes(skb, offsetof(struct ipv6hdr, saddr), source, 16);
		bpf_skb_load_bytes(skb, offsetof(struct ipv6hdr, daddr), destination, 16);
		return;
	}
	source[10] = source[11] = destination[10] = destination[11] = 0xff;
	bpf_skb_load_bytes(skb, offsetof(struct iphdr, saddr), source + 12, 4);
	bpf_skb_load_bytes(skb, offsetof(struct iphdr, daddr), destination + 12, 4);
}

/* The ends that the program knows, of a socket that is connected: the packet of a resolver behind NAT on this machine
 * (Docker's 127.0.0.11, a service address of Kubernetes) bears others when it leaves, and its answer these. */
static __always_inline bool read_ends_of_socket(struct __sk_buff *skb, struct message *message, bool v6)
{
	__u32 *remote = (__u32 *)message->remote_address, *local = (__u32 *)message->local_address;
	struct bpf_sock *sk = skb->sk;

	if (!sk || !sk->dst_port)
		return false;
	message->remote_port = bpf_ntohs(sk->dst_port);
	message->local_port = sk->src_port;
	if (!v6) {
		__u32 far = sk->dst_ip4, near = sk->src_ip4;

		OPAQUE(far); /* loads of their own: the verifier refuses one from a chosen place */
		OPAQUE(near);
		remote[2] = local[2] = bpf_htonl(0xffff);
		remote[3] = far;
		local[3] = near;
		return true;
	}
	remote[0] = sk->dst_ip6[0];
	remote[1] = sk->dst_ip6[1];
	remote[2] = sk->dst_ip6[2];
	remote[3] = sk->dst_ip6[3];
	local[0] = sk->src_ip6[0];
	local[1] = sk->src_ip6[1];
	local[2] = sk->src_ip6[2];
	local[3] = sk->src_ip6[3];
	return true;
}

/* Docker's resolver for user-defined networks: what is sent to its port 53 leaves, by NAT, to a port it chose. */
#define DOCKER_RESOLVER 0x7f00000b /* 127.0.0.11 */

/* A socket that is not connected does not say which port it meant: whether it is DNS is then seen by the message. */
static __always_inline bool goes_to_resolver(struct __sk_buff *skb, __u32 transport)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return false;
	return sk->dst_port ? is_dns_port(bpf_ntohs(sk->dst_port)) : transport == IPPROTO_UDP;
}

/* Where the transport header is; 0 when extension headers hide it. Returns its protocol through `transport`. */
__noinline __u32 skip_extensions(struct __sk_buff *skb, __u32 next)
{
	__u32 offset = sizeof(struct ipv6hdr);

	for (int i = 0; i < 4; i++) {
		struct {
			__u8 next;
			__u8 words;
			__be16 fragment;
		} extension;

		if (next == IPPROTO_UDP || next == IPPROTO_TCP)
			return offset << 8 | next;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT)
			return 0;
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return 0;
		if (next == IPPROTO_FRAGMENT && (extension.fragment & bpf_htons(0xfff8)))
			return 0;
		offset += next == IPPROTO_FRAGMENT ? 8 : (extension.words + 1) * 8;
		next = extension.next;
	}
	return 0;
}
