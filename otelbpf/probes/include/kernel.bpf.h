/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel fields that we read, and nothing else: CO-RE finds their places when the object is loaded.
 * Kernel changes hide here, one inline function each, with the commit that made it. */
#pragma once

#include <linux/types.h>
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>

#ifndef NULL
#define NULL ((void *)0)
#endif
#define KERNEL __attribute__((preserve_access_index))

#define CGROUP_V1 (1ULL << 63)

/* Set by user space where a v1 memory hierarchy is mounted: there the containers are, and the v2 id is the root's. */
const volatile bool cgroup_v1 = false;

struct kernfs_node {
	__u64 id;
} KERNEL;
struct cgroup {
	struct kernfs_node *kn;
	int level;
} KERNEL;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
} KERNEL;
enum cgroup_subsys_id { memory_cgrp_id = 4 };
struct css_set {
	struct cgroup *dfl_cgrp;
	struct cgroup_subsys_state *subsys[14];
} KERNEL;
struct ns_common {
	unsigned int inum;
} KERNEL;
struct net {
	struct ns_common ns;
} KERNEL;
struct nsproxy {
	struct net *net_ns;
} KERNEL;
struct super_block {
	__u32 s_dev;
} KERNEL;
struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
} KERNEL;
struct file {
	struct inode *f_inode;
	void *private_data;
} KERNEL;
struct mm_struct {
	struct file *exe_file;
	unsigned long arg_start;
	unsigned long arg_end;
} KERNEL;
struct task_struct {
	int pid;
	int tgid;
	unsigned int flags;
	struct mm_struct *mm;
	struct css_set *cgroups;
	struct nsproxy *nsproxy;
	struct task_struct *group_leader;
	char comm[16];
} KERNEL;

#define PF_KTHREAD 0x00200000

static __always_inline bool is_kernel_thread(const struct task_struct *task)
{
	return task->flags & PF_KTHREAD;
}

/* The name of the process: a thread may have one of its own, which says nothing to a person (dig's is isc-net-0000). */
static __always_inline void name_of(struct task_struct *task, char name[16])
{
	__builtin_memcpy(name, task->group_leader->comm, 16);
}

/* The id of the cgroup that says which container: v2 wherever the task is in one below the root. */
static __always_inline __u64 cgroup_id_of(struct task_struct *task)
{
	struct cgroup *v2 = task->cgroups->dfl_cgrp;

	if (!cgroup_v1 || v2->level > 0)
		return v2->kn->id;
	int memory = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	struct cgroup_subsys_state *css = NULL;

	bpf_core_read(&css, sizeof(css), &task->cgroups->subsys[memory]);
	return css ? BPF_CORE_READ(css, cgroup, kn, id) | CGROUP_V1 : v2->kn->id;
}

/* Plain loads, which give 0 where a pointer is NULL: eight helper calls here cost half a microsecond a connection. */
static __always_inline __u64 executable_of(struct task_struct *task)
{
	struct inode *inode = task->mm->exe_file->f_inode;

	if (!inode)
		return 0;
	return (__u64)inode->i_sb->s_dev << 40 ^ inode->i_ino;
}

/* A task that exits has no nsproxy any more. */
static __always_inline __u32 netns_of(struct task_struct *task)
{
	return task->nsproxy->net_ns->ns.inum;
}

/* Runs `step(i, state)` until it says 1, `count` times at most. By a helper (5.17) the verifier looks at it once;
 * without, a few turns have to do: each is looked at. */
#define TURNS_WITHOUT_HELPER 8
#define REPEAT(count, step, state)                                                                          \
	do {                                                                                                \
		if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop))                            \
			bpf_loop(count, step, state, 0);                                                    \
		else                                                                                        \
			for (__u32 turn_ = 0; turn_ < TURNS_WITHOUT_HELPER && !step(turn_, state); turn_++) \
				;                                                                           \
	} while (0)
