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
#define SMALLEST_MESSAGE (HEADER_BYTES + 5) /* asks for the root */

#define FLAG_RESPONSE 0x8000
#define FLAGS_OPCODE 0x7800

enum role { CLIENT = 1, SERVER = 2 };

/* Four ports a knob, the first in the lowest bits; 0 is no port. */
const volatile __u64 dns_ports_0 = 53;
const volatile __u64 dns_ports_1 = 0;
const volatile __u64 dns_ports_2 = 0;
const volatile __u64 dns_ports_3 = 0;

/* What makes two messages one lookup. The other end is in it twice over: a client may ask several resolvers with one
 * id on one socket (musl), and a server is asked the same by many. */
struct pending_key {
	__u64 cookie;
	__u64 question; /* hash of the name in lower case, type and class */
	__u8 remote_address[16];
	__u16 remote_port;
	__u16 id;
	__u8 role;
	__u8 transport;
	__u16 zero;
};

/* A message where it lies, and its end points. */
struct message {
	struct pending_key key;
	__u32 offset; /* of its header in the packet */
	__u32 bytes;
	__u32 present; /* in this packet */
	__u16 flags;
	__u16 answers;
	__u16 question_type;
	__u16 question_class;
	__u16 question_bytes;
	__u16 local_port;
	__u8 local_address[16];
	__u8 family;
	bool sent;
	bool to_resolver;
	bool from_resolver;
};

/* The beginning of a message as it is on the wire. The question begins on a word, for the hash. */
struct opening {
	__u32 name_bytes; /* not on the wire: what question_hash() finds, with the zero at its end */
	__u16 id;
	__u16 flags;
	__u16 questions;
	__u16 answers;
	__u16 authorities;
	__u16 additionals;
	__u8 question[QUESTION_BYTES];
};

/* Stops clang from deriving the bound of a length from what it knows: the verifier does not. */
#define OPAQUE(value) asm volatile("" : "+r"(value))

#define EACH_BYTE(byte) (0x0101010101010101ULL * (byte))

/* Eight bytes at a time up to the zero that ends the name. A function of its own that is verified once. */
__noinline __u64 question_hash(struct opening *opening)
{
	if (!opening)
		return 0;
	const __u64 *words = (const __u64 *)opening->question;
	__u64 hash = 0;

	for (int i = 0; i < QUESTION_BYTES / 8; i++) {
		__u64 word = words[i];
		__u64 zeros = (word - EACH_BYTE(0x01)) & ~word & EACH_BYTE(0x80);
		__u64 before =
			((zeros & -zeros) >> 7) - 1; /* the bytes before the first zero; all when there is none */

		word = (word & before) | EACH_BYTE(0x20);
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
		if (zeros) {
			opening->name_bytes = i * 8 + (((before & EACH_BYTE(1)) * EACH_BYTE(1)) >> 56) + 1;
			break;
		}
	}
	return hash;
}

/* Reads header and question into the message; -1 when it is none that we follow: one plain question. */
static __noinline int read_question(struct __sk_buff *skb, struct message *message)
{
	struct opening opening = {};
	__u64 bytes = message->present;

	OPAQUE(bytes);
	if (bytes < SMALLEST_MESSAGE)
		return -1;
	if (bytes > HEADER_BYTES + QUESTION_BYTES)
		bytes = HEADER_BYTES + QUESTION_BYTES;
	if (bpf_skb_load_bytes(skb, message->offset, &opening.id, bytes))
		return -1;
	message->flags = bpf_ntohs(opening.flags);
	if ((message->flags & FLAGS_OPCODE) || opening.questions != bpf_htons(1))
		return -1;

	__u64 hash = question_hash(&opening);
	__u64 name_bytes = opening.name_bytes; /* 64 bits: a bound of a widened copy would not count */

	OPAQUE(name_bytes);
	if (name_bytes == 0 || name_bytes > NAME_BYTES || name_bytes + 4 + HEADER_BYTES > bytes)
		return -1;
	const __u8 *tail = opening.question + name_bytes;

	message->question_type = tail[0] << 8 | tail[1];
	message->question_class = tail[2] << 8 | tail[3];
	message->question_bytes = name_bytes + 4;
	message->answers = bpf_ntohs(opening.answers);
	message->key.id = bpf_ntohs(opening.id);
	message->key.question = hash ^ ((__u64)message->question_type << 16 | message->question_class);
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
	__u32 *remote = (__u32 *)message->key.remote_address, *local = (__u32 *)message->local_address;
	struct bpf_sock *sk = skb->sk;

	if (!sk || !sk->dst_port)
		return false;
	message->key.remote_port = bpf_ntohs(sk->dst_port);
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

static __always_inline bool is_connected_to_resolver(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	return sk && is_dns_port(bpf_ntohs(sk->dst_port));
}

/* TCP may send and receive a segment again: only what is new there counts. */
static __always_inline bool is_repeated(struct __sk_buff *skb, __u32 sequence, bool sent)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp;

	if (!sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return false;
	tcp = bpf_tcp_sock(sk);
	if (!tcp)
		return false;
	__u32 next_sent = tcp->snd_nxt, next_received = tcp->rcv_nxt;

	OPAQUE(next_sent); /* as above */
	OPAQUE(next_received);
	return (__s32)(sequence - (sent ? next_sent : next_received)) < 0;
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
