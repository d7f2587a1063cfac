/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a failed connect() was about: its socket and its arguments, from the registers of the task that called.
 * Include once, after tcp_record.bpf.h. */
#pragma once

#define EINTR_AND_RESTARTS 512 /* ERESTARTSYS and what follows never reach an application */

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long di;
	unsigned long si;
} KERNEL;
#define FIRST_ARGUMENT(registers) BPF_CORE_READ(registers, di)
#define SECOND_ARGUMENT(registers) BPF_CORE_READ(registers, si)
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 orig_x0; /* regs[0] holds the result by now */
} KERNEL;
#define FIRST_ARGUMENT(registers) BPF_CORE_READ(registers, orig_x0)
#define SECOND_ARGUMENT(registers) BPF_CORE_READ(registers, regs[1])
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
	case EINVAL:
	case EAFNOSUPPORT:
	case EPROTOTYPE:
	case EOPNOTSUPP:
		return true;
	}
	return error <= 0 || error >= EINTR_AND_RESTARTS;
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
