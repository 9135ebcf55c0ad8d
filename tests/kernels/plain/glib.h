/* glib.h: as much of GLib as the tests of this folder use, in plain C, so that they are built for another machine with nothing but its C library. */
#ifndef PLAIN_GLIB_H
#define PLAIN_GLIB_H

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int gboolean, gint;
typedef unsigned guint;
typedef size_t gsize;
typedef int8_t gint8;
typedef int64_t gint64;
typedef uint8_t guint8;
typedef uint16_t guint16;
typedef uint32_t guint32;
typedef uint64_t guint64;
typedef void *gpointer;
typedef const void *gconstpointer;
typedef struct {
  char message[1];
} GError;
typedef struct {
  uint64_t state;
} GRand;

#define TRUE 1
#define FALSE 0
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define G_N_ELEMENTS(a) (sizeof (a) / sizeof (a)[0])
#define G_PI 3.141592653589793
#define GINT_TO_POINTER(i) ((gpointer) (intptr_t) (i))
#define GPOINTER_TO_INT(p) ((gint) (intptr_t) (p))

#define g_error(...) (fprintf (stderr, __VA_ARGS__), fputc ('\n', stderr), abort ())
#define plain_check(ok, text) ((ok) ? (void) 0 : (void) (fprintf (stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, text), abort ()))
#define g_assert_true(a) plain_check (a, #a)
#define g_assert_null(a) plain_check (!(a), "no " #a)
#define g_assert_nonnull(a) plain_check (a, #a)
#define g_assert_cmpint(a, op, b) plain_check ((a) op (b), #a " " #op " " #b)
#define g_assert_cmpuint(a, op, b) g_assert_cmpint (a, op, b)
#define g_assert_cmpfloat(a, op, b) g_assert_cmpint (a, op, b)
#define g_assert_cmpfloat_with_epsilon(a, b, e) plain_check (fabs ((a) - (b)) < (e), #a " about " #b)
#define g_assert_cmpmem(a, n, b, m) plain_check ((gsize) (n) == (gsize) (m) && memcmp (a, b, n) == 0, #a " equals " #b)
#define g_assert_cmpstr(a, op, b) plain_check (((a) == NULL) op ((b) == NULL), #a " " #op " " #b)
#define g_assert_no_error(e) g_assert_null (e)

static inline void *plain_new (gsize n, gsize size)
{
  void *memory = calloc (n ? n : 1, size);
  plain_check (memory, "enough memory");
  return memory;
}

#define g_malloc(n) plain_new (n, 1)
#define g_malloc0(n) plain_new (n, 1)
#define g_new(type, n) ((type *) plain_new (n, sizeof (type)))
#define g_new0(type, n) g_new (type, n)
#define g_free(p) free (p)
#define g_aligned_alloc(n, size, align) aligned_alloc (align, ((gsize) (n) * (size) + (align) - 1) / (align) * (align))
#define g_aligned_free(p) free (p)
#define g_memdup2(p, n) memcpy (plain_new (n, 1), p, n)

static inline void plain_release (void *place)
{
  free (*(void **) place);
}

#define g_autofree __attribute__ ((cleanup (plain_release)))
#define g_autoptr(type) __attribute__ ((cleanup (plain_release))) type *

static inline __attribute__ ((format (printf, 1, 2))) char *g_strdup_printf (const char *format, ...)
{
  va_list arguments;
  char *text = plain_new (1, 512);
  va_start (arguments, format);
  vsnprintf (text, 512, format, arguments);
  va_end (arguments);
  return text;
}

/* Numbers of their own: a test's promise holds for any. (Marsaglia's xorshift64*) */
static inline GRand *g_rand_new_with_seed (guint32 seed)
{
  GRand *rand = plain_new (1, sizeof *rand);
  rand->state = seed * 0x9e3779b97f4a7c15u | 1;
  return rand;
}

static inline guint32 plain_random (GRand *rand)
{
  rand->state ^= rand->state >> 12;
  rand->state ^= rand->state << 25;
  rand->state ^= rand->state >> 27;
  return (guint32) (rand->state * 0x2545f4914f6cdd1du >> 32);
}

#define g_rand_int_range(rand, begin, end) ((gint) (begin) + (gint) (plain_random (rand) % (guint32) ((end) - (begin))))
#define g_rand_boolean(rand) ((gboolean) (plain_random (rand) & 1))
#define g_rand_double_range(rand, begin, end) ((begin) + ((end) - (begin)) * (plain_random (rand) * 0x1p-32))

/* Tests in the order in which they were added, their results as TAP. */
typedef struct {
  char *path;
  void (*plain) (void);
  void (*with_data) (gconstpointer data);
  gconstpointer data;
} PlainTest;

enum { PLAIN_MOST_TESTS = 4096 };
static PlainTest plain_tests[PLAIN_MOST_TESTS];
static guint plain_count;
static const char *plain_skipped;

static inline void plain_add (const char *path, void (*plain) (void), void (*with_data) (gconstpointer data), gconstpointer data)
{
  plain_check (plain_count < PLAIN_MOST_TESTS, "room for one more test");
  plain_tests[plain_count++] = (PlainTest) { strdup (path), plain, with_data, data };
}

#define g_test_init(argc, argv, end) setvbuf (stdout, NULL, _IOLBF, 0)
#define g_test_add_func(path, function) plain_add (path, function, NULL, NULL)
#define g_test_add_data_func(path, data, function) plain_add (path, NULL, function, data)
#define g_test_skip(why) (plain_skipped = (why))
#define g_test_message(...) (printf ("# " __VA_ARGS__), putchar ('\n'))

static inline int g_test_run (void)
{
  printf ("1..%u\n", plain_count);
  for (guint i = 0; i < plain_count; i++) {
    plain_skipped = NULL;
    if (plain_tests[i].plain)
      plain_tests[i].plain ();
    else
      plain_tests[i].with_data (plain_tests[i].data);
    printf (plain_skipped ? "ok %u %s # SKIP %s\n" : "ok %u %s\n", i + 1, plain_tests[i].path, plain_skipped);
    free (plain_tests[i].path);
  }
  return 0;
}

#define G_TEST_DIST 0
#define g_test_build_filename(kind, folder, name, end) g_strdup_printf ("%s/%s/%s", getenv ("G_TEST_SRCDIR"), folder, name)

static inline gboolean g_file_get_contents (const char *path, char **data, gsize *size, GError **error)
{
  FILE *file = fopen (path, "rb");
  plain_check (file, path);
  fseek (file, 0, SEEK_END);
  *size = (gsize) ftell (file);
  rewind (file);
  *data = plain_new (*size, 1);
  plain_check (fread (*data, 1, *size, file) == *size, path);
  fclose (file);
  return TRUE;
}

#endif
