/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who runs me: the caller's thread group in the initial pid namespace. In a pod without hostPID no file tells. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("syscall")
int caller(void *ctx)
{
	return bpf_get_current_pid_tgid() >> 32;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
