/* hardware.c: what this machine offers: CPU, memory, graphics. */
#include "app/library/library-private.h"
#include "kernels/cpu.h"

#include <string.h>

static JsonObject *describe_cpu (void);
static JsonArray *list_gpus (void);

JsonObject *valise_hardware_to_json (void)
{
  guint64 total, available;
  eng_memory_machine (&total, &available);
  JsonObject *ram = json_object_new ();
  json_object_set_int_member (ram, "total_bytes", (gint64) total);
  json_object_set_int_member (ram, "available_bytes", (gint64) available);
  JsonObject *object = json_object_new ();
  json_object_set_object_member (object, "cpu", describe_cpu ());
  json_object_set_object_member (object, "ram", ram);
  json_object_set_array_member (object, "gpus", list_gpus ());
  json_object_set_string_member (object, "selected_backend", "cpu");
  return object;
}

/* ---- helpers ---- */

static JsonObject *describe_cpu (void)
{
  JsonArray *isa = json_array_new ();
  for (int i = 0; i < XB_N_ISAS; i++)
    if (xb_isa_built ((xb_isa) i) && xb_isa_available ((xb_isa) i))
      json_array_add_string_element (isa, xb_isa_name ((xb_isa) i));
  JsonObject *cpu = json_object_new ();
  json_object_set_string_member (cpu, "model", xb_cpu_model ());
  json_object_set_int_member (cpu, "cores", eng_workers_default_count ());
  json_object_set_array_member (cpu, "isa", isa);
  json_object_set_string_member (cpu, "selected", xb_isa_name (xb_cpu_selected ()));
  return cpu;
}

static char *read_line (const char *folder, const char *name)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  char *text = NULL;
  return g_file_get_contents (path, &text, NULL, NULL) ? g_strstrip (text) : g_strdup ("");
}

/* The kernel's list of graphics devices ("card0", not its connectors "card0-DP-1"). */
static JsonArray *list_gpus (void)
{
  JsonArray *gpus = json_array_new ();
  g_autoptr (GDir) dir = g_dir_open ("/sys/class/drm", 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    if (!g_str_has_prefix (name, "card") || strchr (name, '-'))
      continue;
    g_autofree char *device = g_build_filename ("/sys/class/drm", name, "device", NULL);
    g_autofree char *link = g_build_filename (device, "driver", NULL);
    g_autofree char *driver = g_file_read_link (link, NULL);
    g_autofree char *driver_name = g_path_get_basename (driver ? driver : "");
    g_autofree char *vendor = read_line (device, "vendor"), *id = read_line (device, "device");
    JsonObject *gpu = json_object_new ();
    json_object_set_string_member (gpu, "name", name);
    json_object_set_string_member (gpu, "driver", driver ? driver_name : "");
    json_object_set_string_member (gpu, "vendor", vendor);
    json_object_set_string_member (gpu, "device", id);
    json_array_add_object_element (gpus, gpu);
  }
  return gpus;
}
