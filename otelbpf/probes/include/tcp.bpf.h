/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The fields of a TCP socket that we read, and what can be worked out from them. Include once, after kernel.bpf.h. */
#pragma once

#include <linux/errno.h>

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_FIN_WAIT2 = 5,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
	TCP_CLOSING = 11,
	TCP_NEW_SYN_RECV = 12,
};

enum sock_flags { SOCK_DEAD = 0, SOCK_DONE = 1 };

typedef struct {
	struct net *net;
} possible_net_t;
typedef struct {
	long long counter;
} atomic64_t;
struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
} KERNEL;
struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport; /* network order */
	__u16 skc_num;   /* host order; 0 already when a socket goes to CLOSE */
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	unsigned long skc_flags;
} KERNEL;
struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	int sk_err;
	int sk_err_soft;
} KERNEL;
struct inet_sock {
	struct sock sk;
	__u16 inet_sport; /* network order */
} KERNEL;
struct inet_connection_sock {
	struct inet_sock icsk_inet;
} KERNEL;
struct minmax_sample {
	__u32 v;
} KERNEL;
struct minmax {
	struct minmax_sample s[3];
} KERNEL;
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 segs_out;
	__u32 segs_in;
	__u64 bytes_sent;     /* payload, repeats included (4.19) */
	__u64 bytes_retrans;  /* payload of repeats (4.19) */
	__u64 bytes_acked;    /* payload, + 1 for the SYN of a client, + 1 for a FIN */
	__u64 bytes_received; /* payload, + 1 for a FIN */
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 rcv_nxt;
	__u32 srtt_us; /* eighths */
	__u32 total_retrans;
	struct minmax rtt_min;
	bool is_mptcp; /* where the kernel has MPTCP (5.6) */
} KERNEL;
struct socket {
	struct file *file;
	struct sock *sk;
} KERNEL;

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
} KERNEL;
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct file *file;
} KERNEL;
struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
} KERNEL;

static __always_inline bool is_tcp(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP;
}

static __always_inline bool is_mptcp(const struct tcp_sock *tcp)
{
	return bpf_core_field_exists(tcp->is_mptcp) && tcp->is_mptcp;
}

static __always_inline bool has_flag(const struct sock *sk, __u32 bit)
{
	return sk->__sk_common.skc_flags >> bit & 1;
}

/* The application has closed its file: nobody is there to be told of an error. */
static __always_inline bool is_orphan(const struct sock *sk)
{
	return has_flag(sk, bpf_core_enum_value(enum sock_flags, SOCK_DEAD));
}

static __always_inline __u32 netns_of_socket(const struct sock *sk)
{
	return sk->__sk_common.skc_net.net->ns.inum;
}

static __always_inline void map_ipv4(__u32 mapped[4], __u32 address)
{
	mapped[0] = 0;
	mapped[1] = 0;
	mapped[2] = bpf_htonl(0xffff);
	mapped[3] = address;
}

static __always_inline bool is_mapped(const __u32 address[4])
{
	return !address[0] && !address[1] && address[2] == bpf_htonl(0xffff);
}

static __always_inline void remote_address_of(const struct sock *sk, __u32 remote[4])
{
	if (sk->__sk_common.skc_family == AF_INET) {
		map_ipv4(remote, sk->__sk_common.skc_daddr);
		return;
	}
	remote[0] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[0];
	remote[1] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[1];
	remote[2] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[2];
	remote[3] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[3];
}

static __always_inline void local_address_of(const struct sock *sk, __u32 local[4])
{
	if (sk->__sk_common.skc_family == AF_INET) {
		map_ipv4(local, sk->__sk_common.skc_rcv_saddr);
		return;
	}
	local[0] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[0];
	local[1] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[1];
	local[2] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[2];
	local[3] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[3];
}

static __always_inline __u64 payload_sent(const struct tcp_sock *tcp)
{
	return tcp->bytes_sent - tcp->bytes_retrans;
}

static __always_inline __u64 payload_received(const struct sock *sk, const struct tcp_sock *tcp)
{
	__u64 bytes = tcp->bytes_received;

	if (bytes && has_flag(sk, bpf_core_enum_value(enum sock_flags, SOCK_DONE)))
		bytes--; /* the peer's FIN */
	return bytes;
}

/* The byte counters tell where both sequences began, at any time of a connection's life; the kernel keeps neither
 * number. Ours: the client's ISN, or the server's + 1 (only a client has its SYN counted as acknowledged). */
static __always_inline __u32 our_first_sequence(const struct tcp_sock *tcp)
{
	return tcp->snd_una - (__u32)tcp->bytes_acked;
}

static __always_inline __u32 their_first_sequence(const struct tcp_sock *tcp)
{
	return tcp->rcv_nxt - (__u32)tcp->bytes_received - 1;
}
