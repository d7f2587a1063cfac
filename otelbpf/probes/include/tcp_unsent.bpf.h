/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a failed connect() was about: its socket and its arguments, from the registers of the task that called; and
 * whether it was told before.
 * Include once, after tcp_record.bpf.h. */
#pragma once

#define TOLD_ENTRIES 4096
#define EINTR_AND_RESTARTS 512 /* ERESTARTSYS and what follows never reach an application */

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
} KERNEL;
#define FIRST_ARGUMENT(registers) BPF_CORE_READ(registers, di)
#define SECOND_ARGUMENT(registers) BPF_CORE_READ(registers, si)
#define THIRD_ARGUMENT(registers) BPF_CORE_READ(registers, dx)
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 orig_x0; /* regs[0] holds the result by now */
} KERNEL;
#define FIRST_ARGUMENT(registers) BPF_CORE_READ(registers, orig_x0)
#define SECOND_ARGUMENT(registers) BPF_CORE_READ(registers, regs[1])
#define THIRD_ARGUMENT(registers) BPF_CORE_READ(registers, regs[2])
#else
#error "which registers hold the arguments of a system call here?"
#endif

struct trace_event_raw_sys_exit {
	long ret;
} KERNEL;
struct fdtable {
	struct file **fd;
} KERNEL;
struct files_struct {
	struct fdtable *fdt;
} KERNEL;
struct task_struct___files {
	struct files_struct *files;
} KERNEL;

/* As applications pass it: struct sockaddr_in6, the beginning of which sockaddr_in shares. */
struct peer_address {
	__u16 family;
	__u16 port;
	__u32 ipv4; /* sin6_flowinfo */
	__u8 ipv6[16];
};
#define IPV4_BYTES 8
#define SOCKADDR_IN_BYTES 16
#define SOCKADDR_IN6_BYTES 24 /* without its scope, as RFC 2133 had it */
#define SOCKADDR_BYTES 128    /* the longest of any family */

struct failure {
	__u64 cookie; /* addresses of sockets are used again */
	__u64 error;
};

/* Sockets whose failure was told when it happened, so that connect() returning it is not told again. LRU: those
 * that learn of it otherwise (SO_ERROR, or never) leave their entry behind. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TOLD_ENTRIES);
	__type(key, __u64); /* address of the socket */
	__type(value, struct failure);
} told SEC(".maps");

static __always_inline void remember_told(struct sock *sk, __u32 error)
{
	struct failure failure = { .cookie = bpf_get_socket_cookie(sk), .error = error };
	__u64 address = (__u64)sk;

	bpf_map_update_elem(&told, &address, &failure, BPF_ANY);
}

/* Whether this error of the socket was told when it happened. Another one is of another try: since then the application
 * has taken the first from SO_ERROR, or ended that try itself. */
static __always_inline bool was_told(const struct sock *sk, __u64 cookie, __u64 error)
{
	__u64 address = (__u64)sk;
	const struct failure *failure = bpf_map_lookup_elem(&told, &address);
	bool same;

	if (!failure || failure->cookie != cookie)
		return false;
	same = failure->error == error;
	bpf_map_delete_elem(&told, &address);
	return same;
}

/* Errors of a call that was wrong, not of a connection that failed; and those that only say "not yet". */
static __always_inline bool tells_no_failure(long error)
{
	switch (error) {
	case EINPROGRESS:
	case EALREADY:
	case EISCONN:
	case EINTR:
	case EAGAIN:
	case EBADF:
	case ENOTSOCK:
	case EFAULT:
	case EAFNOSUPPORT:
	case EPROTOTYPE:
	case EOPNOTSUPP:
		return true;
	}
	return error <= 0 || error >= EINTR_AND_RESTARTS;
}

/* Errors that connect() never finds by itself: what was under way failed, or had been established meanwhile, and was
 * told by the change of its state. */
static __always_inline bool follows_a_syn(long error)
{
	return error == ECONNRESET || error == ECONNABORTED || error == EPIPE || error == ETIMEDOUT;
}

/* EINVAL may be of a call that was wrong; with an address as long as it has to be, it is of the way there (a blackhole
 * route, an address of our own that leads nowhere). */
static __always_inline bool is_whole_address(struct sock *sk, struct task_struct *task)
{
	__u32 bytes = THIRD_ARGUMENT((struct pt_regs *)bpf_task_pt_regs(task));
	bool v6 = BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6;

	return bytes >= (v6 ? SOCKADDR_IN6_BYTES : SOCKADDR_IN_BYTES) && bytes <= SOCKADDR_BYTES;
}

/* The socket that the task gave to connect(), or NULL. Not a pointer that the verifier trusts. */
static __always_inline struct sock *connected_socket(struct task_struct *task)
{
	struct pt_regs *registers = (struct pt_regs *)bpf_task_pt_regs(task);
	__u32 number = FIRST_ARGUMENT(registers);
	struct file **files = BPF_CORE_READ((struct task_struct___files *)task, files, fdt, fd), *file = NULL;
	struct socket *socket;

	bpf_probe_read_kernel(&file, sizeof(file), &files[number]);
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, file) == file ? BPF_CORE_READ(socket, sk) : NULL;
}

/* The peer as the application gave it: the socket has forgotten it, or never knew. */
static __always_inline bool read_peer(struct tcp_connection *event, struct task_struct *task)
{
	struct pt_regs *registers = (struct pt_regs *)bpf_task_pt_regs(task);
	const void *argument = (const void *)SECOND_ARGUMENT(registers);
	struct peer_address peer = {};

	if (bpf_probe_read_user(&peer, IPV4_BYTES, argument))
		return false;
	event->remote_port = bpf_ntohs(peer.port);
	if (peer.family == AF_INET) {
		map_ipv4((__u32 *)event->remote_address, peer.ipv4);
	} else {
		if (peer.family != AF_INET6 || bpf_probe_read_user(&peer, sizeof(peer), argument))
			return false;
		__builtin_memcpy(event->remote_address, peer.ipv6, sizeof(peer.ipv6));
	}
	event->family = is_mapped((__u32 *)event->remote_address) ? 4 : 6;
	return true;
}

/* Where the socket was bound before, if it was. */
static __always_inline void read_local(struct tcp_connection *event, struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET)
		map_ipv4((__u32 *)event->local_address, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	else
		BPF_CORE_READ_INTO(&event->local_address, sk, __sk_common.skc_v6_rcv_saddr);
	event->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
}
