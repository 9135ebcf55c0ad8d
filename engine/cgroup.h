/* cgroup.h: what the control groups above this process allow it. Internal to the engine. */
#ifndef ENG_CGROUP_H
#define ENG_CGROUP_H

#include <glib.h>

/* CPUs by the tightest quota, rounded up; 0: no limit. */
guint eng_cgroup_cpus (void);
/* Tightest memory limit, and what is left under it (page cache that can be dropped counts as left); FALSE: no limit. */
gboolean eng_cgroup_memory (guint64 *limit_bytes, guint64 *left_bytes);

#endif
