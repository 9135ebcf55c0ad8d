/* cgroup.c: limits of cgroup v2 and v1, from this process's group up to the root, the tightest wins. */
#include "engine/cgroup.h"

#include <string.h>

#define V1_NO_LIMIT (G_GUINT64_CONSTANT (1) << 60) /* v1 writes "no limit" as a number near 2^63 */

typedef void (*Visit) (const char *directory, gboolean v2, gpointer data);

static gboolean has_controller (const char *list, const char *controller)
{
  g_auto (GStrv) names = g_strsplit (list, ",", -1);
  return g_strv_contains ((const char *const *)names, controller);
}

/* Calls visit for every directory of this process's group and its ancestors. In a container the path may not exist below the mount;
 * its root then still has the container's own limits. */
static void walk_up (const char *controller, Visit visit, gpointer data)
{
  g_autofree char *text = NULL;
  if (!g_file_get_contents ("/proc/self/cgroup", &text, NULL, NULL))
    return;
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  for (char **line = lines; *line != NULL; line++) {
    g_auto (GStrv) parts = g_strsplit (*line, ":", 3);
    if (g_strv_length (parts) != 3)
      continue;
    gboolean v2 = parts[1][0] == '\0';
    if (!v2 && !has_controller (parts[1], controller))
      continue;
    g_autofree char *path = g_strdup (parts[2]);
    for (gsize length = strlen (path) + 1; length > 0;) {
      g_autofree char *directory = g_build_filename ("/sys/fs/cgroup", v2 ? "" : parts[1], path, NULL);
      visit (directory, v2, data);
      while (length > 0 && path[--length] != '/')
        ;
      path[length] = '\0';
    }
  }
}

/* First number of a file; FALSE when there is none ("max", or no such file). `second` may be NULL. */
static gboolean read_numbers (const char *directory, const char *name, guint64 *first, guint64 *second)
{
  g_autofree char *path = g_build_filename (directory, name, NULL), *text = NULL;
  char *end;
  if (!g_file_get_contents (path, &text, NULL, NULL) || !g_ascii_isdigit (text[0]))
    return FALSE;
  *first = g_ascii_strtoull (text, &end, 10);
  if (second != NULL)
    *second = g_ascii_strtoull (end, NULL, 10);
  return TRUE;
}

static void visit_cpu (const char *directory, gboolean v2, gpointer data)
{
  guint *least = data;
  guint64 quota, period = 0;
  if (v2 ? !read_numbers (directory, "cpu.max", &quota, &period)
         : !read_numbers (directory, "cpu.cfs_quota_us", &quota, NULL)
               || !read_numbers (directory, "cpu.cfs_period_us", &period, NULL))
    return;
  if (period == 0 || quota == 0)
    return;
  guint cpus = MIN ((quota + period - 1) / period, 1 << 16);
  *least = *least > 0 ? MIN (*least, cpus) : cpus;
}

guint eng_cgroup_cpus (void)
{
  guint least = 0;
  walk_up ("cpu", visit_cpu, &least);
  return least;
}

typedef struct {
  gboolean found;
  guint64 limit, left;
} Memory;

/* `inactive_file` of memory.stat: cache that goes first when memory is short. */
static guint64 droppable_bytes (const char *directory)
{
  g_autofree char *path = g_build_filename (directory, "memory.stat", NULL), *text = NULL;
  if (!g_file_get_contents (path, &text, NULL, NULL))
    return 0;
  const char *at = g_str_has_prefix (text, "inactive_file ") ? text : strstr (text, "\ninactive_file ");
  return at != NULL ? g_ascii_strtoull (strchr (at, ' '), NULL, 10) : 0;
}

static void visit_memory (const char *directory, gboolean v2, gpointer data)
{
  Memory *memory = data;
  guint64 limit, used = 0;
  if (!read_numbers (directory, v2 ? "memory.max" : "memory.limit_in_bytes", &limit, NULL) || limit >= V1_NO_LIMIT)
    return;
  read_numbers (directory, v2 ? "memory.current" : "memory.usage_in_bytes", &used, NULL);
  used -= MIN (used, droppable_bytes (directory));
  guint64 left = limit - MIN (limit, used);
  memory->limit = memory->found ? MIN (memory->limit, limit) : limit;
  memory->left = memory->found ? MIN (memory->left, left) : left;
  memory->found = TRUE;
}

gboolean eng_cgroup_memory (guint64 *limit_bytes, guint64 *left_bytes)
{
  Memory memory = { FALSE, 0, 0 };
  walk_up ("memory", visit_memory, &memory);
  *limit_bytes = memory.limit;
  *left_bytes = memory.left;
  return memory.found;
}
