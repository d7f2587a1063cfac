/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which path a cgroup id stands for, from the moment the cgroup is made: a container may be gone before anybody could
 * look. Teaches enrichment; no signal of its own. */
#include "kernel.bpf.h"
#include "event.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PATH_BYTES 512

enum cgroup_path_kind { CGROUP_MKDIR = 1, CGROUP_RMDIR = 2, CGROUP_RENAME = 3 };

struct cgroup_path {
	__u64 time_ns;
	__u64 cgroup_id; /* as in the head of other events */
	__u32 kind;
	char path[PATH_BYTES]; /* from the root of the hierarchy */
};
EVENT(cgroup_path);

struct cgroup_root {
	unsigned int subsys_mask;
	int hierarchy_id;
} KERNEL;
struct cgroup___hierarchy {
	struct kernfs_node *kn;
	struct cgroup_root *root;
} KERNEL;

static __always_inline bool v1_memory(struct cgroup_root *root)
{
	return root->subsys_mask & 1U << bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
}

static __always_inline int tell(struct cgroup___hierarchy *cgroup, const char *path, enum cgroup_path_kind kind)
{
	struct cgroup_root *root = cgroup->root;
	__u64 id = cgroup->kn->id;

	if (root->hierarchy_id != 0) { /* not v2 */
		if (!cgroup_v1 || !v1_memory(root))
			return 0;
		id |= CGROUP_V1;
	}
	COUNT(seen);
	struct cgroup_path *event = event_reserve(sizeof(*event), sizeof(*event));

	if (!event)
		return 0;
	event->time_ns = bpf_ktime_get_boot_ns();
	event->cgroup_id = id;
	event->kind = kind;
	bpf_probe_read_kernel_str(event->path, PATH_BYTES, path);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_made, struct cgroup___hierarchy *cgroup, const char *path)
{
	return tell(cgroup, path, CGROUP_MKDIR);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_removed, struct cgroup___hierarchy *cgroup, const char *path)
{
	return tell(cgroup, path, CGROUP_RMDIR);
}

SEC("tp_btf/cgroup_rename")
int BPF_PROG(cgroup_renamed, struct cgroup___hierarchy *cgroup, const char *path)
{
	return tell(cgroup, path, CGROUP_RENAME);
}
