/* test_job.c: imports, analyses and fits as things to watch: told on the main context, cancelled within a moment, nothing left. */
#include "app/library/job.h"
#include "engine/error.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <string.h>

static ValiseLibrary *fresh (char **source)
{
  static guint n;
  const TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (GError) error = NULL;
  g_autofree char *name = g_strdup_printf ("library-%u", n++), *home = scratch_path (name);
  *source = scratch_path ("tiny.gguf");
  tiny_model_write (&tiny, *source);
  ValiseLibrary *library = valise_library_open (home, &error);
  g_assert_no_error (error);
  return library;
}

typedef struct {
  GThread *thread;
  double fraction;
  guint notes, states;
} Watch;

static void note (ValiseJob *job, GParamSpec *property, gpointer data)
{
  Watch *watch = data;
  g_assert_true (g_thread_self () == watch->thread);
  if (g_str_equal (property->name, "fraction")) {
    g_assert_cmpfloat (valise_job_get_fraction (job), >=, watch->fraction);
    watch->fraction = valise_job_get_fraction (job);
  }
  watch->states += g_str_equal (property->name, "state");
  watch->notes++;
}

static void watch (ValiseJob *job, Watch *watching)
{
  *watching = (Watch) { .thread = g_thread_self () };
  g_signal_connect (job, "notify", G_CALLBACK (note), watching);
  g_assert_cmpint (valise_job_get_state (job), ==, VALISE_JOB_RUNNING);
}

static void await (ValiseJob *job)
{
  while (valise_job_get_state (job) == VALISE_JOB_RUNNING)
    g_main_context_iteration (NULL, TRUE);
}

static void expect_no_temporaries (ValiseLibrary *library)
{
  g_autofree char *folder = g_build_filename (valise_library_get_home (library), "tmp", NULL);
  g_assert_cmpuint (scratch_count (folder), ==, 0);
}

static void test_whole_way (void)
{
  g_autofree char *source = NULL;
  g_autoptr (ValiseLibrary) library = fresh (&source);
  Watch watching;
  g_autoptr (ValiseJob) import = valise_job_import (library, source, "imported");
  watch (import, &watching);
  g_assert_cmpstr (valise_job_get_title (import), ==, "tiny.gguf");
  g_assert_null (valise_job_get_model (import));
  await (import);
  g_assert_cmpint (valise_job_get_state (import), ==, VALISE_JOB_DONE);
  g_assert_cmpuint (watching.states, ==, 1);
  g_assert_cmpfloat (valise_job_get_fraction (import), ==, 1);
  g_assert_cmpstr (valise_model_get_name (valise_job_get_model (import)), ==, "imported");
  g_assert_null (valise_job_get_result (import));

  const ValiseTarget target = { .bpw = 4 };
  g_autoptr (ValiseJob) fit = valise_job_fit (library, valise_job_get_model (import), &target, "fitted", NULL);
  watch (fit, &watching);
  g_assert_cmpstr (valise_job_get_title (fit), ==, "imported");
  g_assert_null (valise_job_get_plan (fit));
  await (fit);
  g_assert_null (valise_job_get_error (fit));
  g_assert_cmpint (valise_job_get_state (fit), ==, VALISE_JOB_DONE);
  g_assert_cmpuint (watching.notes, >, 3);
  g_assert_cmpstr (valise_model_get_name (valise_job_get_model (fit)), ==, "fitted");
  g_assert_cmpuint (valise_job_get_result (fit)->file_bytes, ==, valise_model_get_bytes (valise_job_get_model (fit)));
  g_assert_cmpuint (valise_job_get_plan (fit)->memory.weights_bytes, ==, valise_job_get_result (fit)->file_bytes);
  g_assert_cmpint (*valise_job_get_detail (fit), !=, '\0');
  expect_no_temporaries (library);
}

static void test_failure (void)
{
  g_autofree char *source = NULL;
  g_autoptr (ValiseLibrary) library = fresh (&source);
  Watch watching;
  g_autoptr (ValiseJob) job = valise_job_import (library, "/nowhere/at all.gguf", NULL);
  watch (job, &watching);
  await (job);
  g_assert_cmpint (valise_job_get_state (job), ==, VALISE_JOB_FAILED);
  g_assert_nonnull (strstr (valise_job_get_error (job)->message, "/nowhere/at all.gguf"));
  g_assert_cmpuint (watching.states, ==, 1);
  g_assert_null (valise_job_get_model (job));
}

/* At whatever point: cancelled (or just done), the library without a trace of it, and the same again goes through. */
static void test_cancel (void)
{
  g_autofree char *source = NULL;
  g_autoptr (ValiseLibrary) library = fresh (&source);
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseModel) model = valise_library_import (library, source, NULL, NULL, NULL, NULL, &error);
  const ValiseTarget target = { .bpw = 3 };
  guint cancelled = 0;
  for (guint i = 0; i < 12; i++) {
    Watch watching;
    g_autoptr (ValiseJob) job = valise_job_fit (library, model, &target, "fitted", NULL);
    watch (job, &watching);
    for (guint turns = 0; turns < i && valise_job_get_state (job) == VALISE_JOB_RUNNING; turns++)
      g_main_context_iteration (NULL, TRUE);
    valise_job_cancel (job);
    await (job);
    if (valise_job_get_state (job) == VALISE_JOB_DONE) {
      g_assert_true (valise_library_remove (library, valise_job_get_model (job), NULL, &error));
    } else {
      g_assert_cmpint (valise_job_get_state (job), ==, VALISE_JOB_CANCELLED);
      g_assert_null (valise_job_get_error (job));
      cancelled++;
    }
    g_autoptr (GPtrArray) models = valise_library_list_models (library, &error);
    g_assert_cmpuint (models->len, ==, 1);
    expect_no_temporaries (library);
  }
  g_assert_cmpuint (cancelled, >=, 1);
  g_autoptr (ValiseJob) last = valise_job_fit (library, model, &target, "fitted", NULL);
  await (last);
  g_assert_cmpint (valise_job_get_state (last), ==, VALISE_JOB_DONE);
}

/* A job nobody holds goes on to its end, and lets go of the library. */
static void test_forgotten (void)
{
  g_autofree char *source = NULL;
  ValiseLibrary *library = fresh (&source);
  g_autofree char *home = g_strdup (valise_library_get_home (library));
  gpointer gone = library;
  g_object_add_weak_pointer (G_OBJECT (library), &gone);
  g_object_unref (valise_job_import (library, source, NULL));
  g_object_unref (library);
  while (gone)
    g_main_context_iteration (NULL, TRUE);
  g_autoptr (ValiseLibrary) again = valise_library_open (home, NULL);
  g_autoptr (GPtrArray) models = valise_library_list_models (again, NULL);
  g_assert_cmpuint (models->len, ==, 1);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_autofree char *cache = scratch_path ("cache");
  g_setenv ("XDG_CACHE_HOME", cache, TRUE);
  g_test_add_func ("/job/import-and-fit", test_whole_way);
  g_test_add_func ("/job/failure", test_failure);
  g_test_add_func ("/job/cancel-leaves-nothing", test_cancel);
  g_test_add_func ("/job/forgotten", test_forgotten);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
