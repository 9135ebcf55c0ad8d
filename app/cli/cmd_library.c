/* cmd_library.c: import, list, show, remove, export, verify; and hardware. */
#include "app/cli/cli.h"

#include <glib/gstdio.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *kind_name (ValiseModel *model);
static char *count (guint64 n);
static void print_model (ValiseModel *model);

/* Opens the library and finds argv[1] in it. */
static ValiseModel *open_named (ValiseLibrary **library, const char *name, GError **error)
{
  *library = valise_library_open (NULL, error);
  return *library ? valise_library_find_model (*library, name, error) : NULL;
}

int cli_hardware (int argc, char **argv)
{
  if (!cli_parse (NULL, 0, 0, &argc, &argv))
    return CLI_USAGE;
  JsonObject *hardware = valise_hardware_to_json ();
  if (cli_json)
    return cli_print_object (hardware);
  JsonObject *cpu = json_object_get_object_member (hardware, "cpu"), *ram = json_object_get_object_member (hardware, "ram");
  JsonArray *isa = json_object_get_array_member (cpu, "isa"), *gpus = json_object_get_array_member (hardware, "gpus");
  g_autofree char *total = valise_size_format ((guint64) json_object_get_int_member (ram, "total_bytes"));
  g_autofree char *available = valise_size_format ((guint64) json_object_get_int_member (ram, "available_bytes"));
  printf ("Processor     %s, %d cores\n", json_object_get_string_member (cpu, "model"), (int) json_object_get_int_member (cpu, "cores"));
  printf ("Instructions  ");
  for (guint i = 0; i < json_array_get_length (isa); i++)
    printf ("%s%s", i > 0 ? ", " : "", json_array_get_string_element (isa, i));
  printf (" (using %s)\n", json_object_get_string_member (cpu, "selected"));
  printf ("Memory        %s, %s available\n", total, available);
  for (guint i = 0; i < json_array_get_length (gpus); i++) {
    JsonObject *gpu = json_array_get_object_element (gpus, i);
    printf ("Graphics      %s (%s, %s:%s)\n", json_object_get_string_member (gpu, "name"), json_object_get_string_member (gpu, "driver"),
            json_object_get_string_member (gpu, "vendor"), json_object_get_string_member (gpu, "device"));
  }
  printf ("Computes on   the %s\n", g_str_equal (json_object_get_string_member (hardware, "selected_backend"), "cpu") ? "processor" : "GPU");
  json_object_unref (hardware);
  return CLI_OK;
}

int cli_import (int argc, char **argv)
{
  g_autofree char *name = NULL;
  gboolean link = FALSE;
  const GOptionEntry entries[]
    = { { "name", 'n', 0, G_OPTION_ARG_FILENAME, &name, "Its name in the library (else from the file's)", "NAME" },
        { "link", 'l', 0, G_OPTION_ARG_NONE, &link, "Leave the files where they are instead of copying them", NULL }, { NULL } };
  if (!cli_parse (entries, 1, 1, &argc, &argv))
    return CLI_USAGE;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  g_autoptr (ValiseModel) model
    = library ? (link ? valise_library_link : valise_library_import) (library, argv[1], name, cli_progress, NULL, cli_cancellable (), &error) : NULL;
  if (!model)
    return cli_fail (error);
  if (cli_json)
    return cli_print_object (valise_model_to_json (model));
  cli_progress_end ();
  print_model (model);
  return CLI_OK;
}

int cli_list (int argc, char **argv)
{
  if (!cli_parse (NULL, 0, 0, &argc, &argv))
    return CLI_USAGE;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  g_autoptr (GPtrArray) models = library ? valise_library_list_models (library, &error) : NULL;
  if (!models)
    return cli_fail (error);
  if (cli_json) {
    JsonArray *array = json_array_new ();
    for (guint i = 0; i < models->len; i++)
      json_array_add_object_element (array, valise_model_to_json (models->pdata[i]));
    return cli_print_array (array);
  }
  if (models->len == 0) {
    printf ("The library is empty: add a model with \"valise import SOURCE\".\n");
    return CLI_OK;
  }
  int width = 4;
  for (guint i = 0; i < models->len; i++)
    width = MAX (width, (int) g_utf8_strlen (valise_model_get_name (models->pdata[i]), -1) + 2 * (valise_model_get_parent (models->pdata[i]) != 0));
  printf ("%-*s  %-10s  %-8s  %9s  %5s  %s\n", width, "NAME", "KIND", "FAMILY", "SIZE", "BITS", "LICENCE");
  for (guint i = 0; i < models->len; i++) {
    ValiseModel *model = models->pdata[i];
    const char *indent = valise_model_get_parent (model) != 0 ? "  " : "";
    int pad = width - (int) strlen (indent) - (int) g_utf8_strlen (valise_model_get_name (model), -1);
    g_autofree char *bytes = valise_size_format (valise_model_get_bytes (model));
    printf ("%s%s%*s  %-10s  %-8s  %9s  %5.2f  %s\n", indent, valise_model_get_name (model), pad, "", kind_name (model),
            valise_model_get_architecture (model), bytes, valise_model_get_bpw (model), valise_model_get_license (model));
  }
  return CLI_OK;
}

int cli_show (int argc, char **argv)
{
  g_autofree char *report = NULL;
  const GOptionEntry entries[]
    = { { "report", 0, 0, G_OPTION_ARG_FILENAME, &report, "Write what the fit is made of to a page to look at", "FILE.html" }, { NULL } };
  if (!cli_parse (entries, 1, 1, &argc, &argv))
    return CLI_USAGE;
  if (report && !g_str_has_suffix (report, ".html"))
    return cli_usage ("--report %s does not end in .html", report);
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = NULL;
  g_autoptr (ValiseModel) model = open_named (&library, argv[1], &error);
  if (!model)
    return cli_fail (error);
  g_autoptr (EngCheckpointSource) weights = valise_model_describe_weights (model, &error);
  if (!weights || (report && !valise_model_write_report (model, report, &error)))
    return cli_fail (error);
  g_autofree char *made = valise_weights_text (weights);
  if (cli_json) {
    JsonObject *object = valise_model_to_json (model);
    json_object_set_boolean_member (object, "pictures", valise_model_sees_pictures (model));
    json_object_set_string_member (object, "weights", made);
    json_object_set_object_member (object, "quantization", valise_weights_to_json (weights));
    return cli_print_object (object);
  }
  print_model (model);
  printf ("Weights     %s\nHere        %s\n", made, weights->kept);
  if (valise_model_sees_pictures (model))
    printf ("Pictures    not seen: Valise computes the text part\n");
  return CLI_OK;
}

int cli_remove (int argc, char **argv)
{
  if (!cli_parse (NULL, 1, 1, &argc, &argv))
    return CLI_USAGE;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = NULL;
  g_autoptr (ValiseModel) model = open_named (&library, argv[1], &error);
  guint64 freed;
  if (!model || !valise_library_remove (library, model, &freed, &error))
    return cli_fail (error);
  if (cli_json) {
    JsonObject *object = json_object_new ();
    json_object_set_string_member (object, "name", valise_model_get_name (model));
    json_object_set_boolean_member (object, "removed", TRUE);
    json_object_set_int_member (object, "freed_bytes", (gint64) freed);
    return cli_print_object (object);
  }
  g_autofree char *bytes = valise_size_format (freed);
  printf ("Removed %s: %s freed.\n", valise_model_get_name (model), bytes);
  return CLI_OK;
}

static gint64 size_of (const char *path)
{
  GStatBuf info;
  return g_stat (path, &info) == 0 ? (gint64) info.st_size : 0;
}

int cli_export (int argc, char **argv)
{
  g_autofree char *output = NULL, *format = NULL, *size = NULL;
  guint64 bytes = 0;
  const GOptionEntry entries[]
    = { { "output", 'o', 0, G_OPTION_ARG_FILENAME, &output, "The file or folder to write (else the working folder)", "FILE" },
        { "format", 'f', 0, G_OPTION_ARG_STRING, &format, "gguf: a file of standard types that other programs read", "FORMAT" },
        { "size", 's', 0, G_OPTION_ARG_STRING, &size, "Size of that file (else the model's own)", "SIZE" },
        { NULL } };
  if (!cli_parse (entries, 1, 2, &argc, &argv))
    return CLI_USAGE;
  if (output && argc > 2)
    return cli_usage ("the file is named twice, \"%s\" and \"%s\"", output, argv[2]);
  if (format && strcmp (format, "gguf") != 0)
    return cli_usage ("\"%s\" is no format to export: say gguf, or nothing for the model's own files", format);
  if (size && !format)
    return cli_usage ("--size is for --format gguf: a model's own files have the size they have");
  g_autoptr (GError) error = NULL;
  if (size && !valise_size_parse (size, &bytes, &error))
    return cli_fail (error);
  g_autoptr (ValiseLibrary) library = NULL;
  g_autoptr (ValiseModel) model = open_named (&library, argv[1], &error);
  if (!model)
    return cli_fail (error);
  const char *wanted = output ? output : argc > 2 ? argv[2] : ".";
  g_autofree char *file = g_strconcat (valise_model_get_name (model), ".gguf", NULL);
  g_autofree char *path = g_file_test (wanted, G_FILE_TEST_IS_DIR) ? g_build_filename (wanted, file, NULL) : g_strdup (wanted);
  if (format && !valise_library_export_plain (library, model, path, bytes, cli_progress, NULL, cli_cancellable (), &error))
    return cli_fail (error);
  if (!format && !(valise_is_archive_name (path) ? valise_library_export_archive : valise_library_export) (library, model, path, cli_progress, NULL, cli_cancellable (), &error))
    return cli_fail (error);
  g_autofree char *full = g_canonicalize_filename (path, NULL);
  if (cli_json) {
    JsonObject *object = json_object_new ();
    json_object_set_string_member (object, "name", valise_model_get_name (model));
    json_object_set_string_member (object, "path", full);
    json_object_set_int_member (object, "bytes", format ? size_of (full) : (gint64) valise_model_get_bytes (model));
    return cli_print_object (object);
  }
  cli_progress_end ();
  printf ("Exported %s to %s.\n", valise_model_get_name (model), full);
  return CLI_OK;
}

int cli_verify (int argc, char **argv)
{
  if (!cli_parse (NULL, 1, 1, &argc, &argv))
    return CLI_USAGE;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = NULL;
  g_autoptr (ValiseModel) model = open_named (&library, argv[1], &error);
  gboolean intact = model && valise_library_verify (library, model, cli_progress, NULL, cli_cancellable (), &error);
  int status = intact ? CLI_OK : cli_fail (error);
  if (cli_json && model && status != CLI_CANCELLED) {
    JsonObject *object = json_object_new ();
    json_object_set_string_member (object, "name", valise_model_get_name (model));
    json_object_set_string_member (object, "path", valise_model_get_path (model));
    json_object_set_string_member (object, "sha256", valise_model_get_sha256 (model));
    json_object_set_boolean_member (object, "intact", intact);
    if (!intact)
      json_object_set_string_member (object, "problem", error->message);
    cli_print_object (object);
  } else if (intact) {
    cli_progress_end ();
    printf ("%s is intact.\n", valise_model_get_name (model));
  }
  return status;
}

/* ---- helpers ---- */

static const char *kind_name (ValiseModel *model)
{
  return valise_model_get_kind (model) == VALISE_MODEL_FIT ? "fit" : "checkpoint";
}

/* "134.5 million" */
static char *count (guint64 n)
{
  return n < 1000000000 ? g_strdup_printf ("%.1f million", (double) n / 1e6) : g_strdup_printf ("%.2f billion", (double) n / 1e9);
}

static void print_model (ValiseModel *model)
{
  g_autofree char *bytes = valise_size_format (valise_model_get_bytes (model));
  g_autofree char *parameters = count (valise_model_get_parameters (model));
  printf ("Name        %s\n", valise_model_get_name (model));
  printf ("Kind        %s, %s\n", kind_name (model), valise_model_get_architecture (model));
  printf ("Parameters  %s\n", parameters);
  printf ("Size        %s, %.2f bits per weight\n", bytes, valise_model_get_bpw (model));
  if (!isnan (valise_model_get_kl (model)))
    printf ("Quality     KL divergence %.4f from its checkpoint\n", valise_model_get_kl (model));
  printf ("Context     %u tokens\n", valise_model_get_context (model));
  printf ("Licence     %s\n", *valise_model_get_license (model) ? valise_model_get_license (model) : "not stated");
  printf ("Source      %s\n", valise_model_get_source (model));
  printf ("File        %s\n", valise_model_get_path (model));
}
