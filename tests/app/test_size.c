/* test_size.c: sizes as people write them; whatever else they write is refused. */
#include "app/library/library.h"

#include <math.h>
#include <string.h>

static void test_parse (void)
{
  static const struct {
    const char *text;
    guint64 bytes;
  } sizes[] = {
    { "96M", 96000000 },       { "1.5G", 1500000000 },   { "900MiB", 943718400 },     { "1", 1 },          { "12345", 12345 },
    { "12345B", 12345 },       { "96 MB", 96000000 },    { "  96m  ", 96000000 },     { "0.5K", 500 },     { "1KiB", 1024 },
    { "1kib", 1024 },          { "2GiB", 2147483648 },   { "0.25GiB", 268435456 },    { "1T", 1000000000000 }, { "1TiB", 1099511627776 },
    { ".5M", 500000 },         { "5.M", 5000000 },       { "0.1234567G", 123456700 }, { "08M", 8000000 },  { "1.2345K", 1235 },
    { "9000000T", 9000000000000000000 },
  };
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (GError) error = NULL;
    guint64 bytes = 0;
    g_test_message ("%s", sizes[i].text);
    g_assert_true (valise_size_parse (sizes[i].text, &bytes, &error));
    g_assert_no_error (error);
    g_assert_cmpuint (bytes, ==, sizes[i].bytes);
  }
}

static void expect_refused (const char *text)
{
  g_autoptr (GError) error = NULL;
  guint64 bytes = 77;
  g_assert_false (valise_size_parse (text, &bytes, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  g_assert_nonnull (strstr (error->message, "96M, 1.5G or 900MiB"));
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_assert_null (strchr (error->message, '\n'));
  g_assert_cmpuint (strlen (error->message), <, 500);
  g_assert_cmpuint (bytes, ==, 77);
}

static void test_hostile (void)
{
  static const char *const texts[] = {
    "", " ", "M", "MiB", ".", "..", "1.2.3", "1..2M", "-1", "-1G", "+1G", "0", "0M", "0.4", "1e9", "1e9G", "0x10", "0x10M", "inf", "nan", "infM",
    "1,5G", "1 000M", "1M M", "1MM", "1MBiB", "12Q", "12E", "12bytes", "9223372036854775808", "18446744073709551616", "99999999999999999999G",
    "9223373T", "9999999999999T", "1\n2M", "1M\n2", "1\xff", "\xff\xfe", "\xe2\x88\x9e", "\xd9\xa3M", "1M;", "1M\\", "$(1M)", "%s%n", "1%M",
  };
  for (guint i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_test_message ("case %u", i);
    expect_refused (texts[i]);
  }
  /* A great many digits are a great number, or the same as few. */
  g_autofree char *nines = g_strnfill (100000, '9'), *zeros = g_strnfill (100000, '0'), *junk = g_strnfill (100000, 'x');
  expect_refused (nines);
  expect_refused (zeros);
  expect_refused (junk);
  g_autofree char *small = g_strconcat (zeros, "7M", NULL), *point = g_strconcat ("3.", zeros, "M", NULL);
  guint64 bytes;
  g_assert_true (valise_size_parse (small, &bytes, NULL));
  g_assert_cmpuint (bytes, ==, 7000000);
  g_assert_true (valise_size_parse (point, &bytes, NULL));
  g_assert_cmpuint (bytes, ==, 3000000);
}

/* What is shown can be typed again, and says the same to the digits shown. */
static void test_format (void)
{
  static const struct {
    guint64 bytes;
    const char *text;
  } sizes[] = {
    { 0, "0 B" },          { 999, "999 B" },          { 1000, "1.0 kB" },          { 999949, "999.9 kB" },          { 999950, "1.0 MB" },
    { 96000000, "96.0 MB" }, { 999949999, "999.9 MB" }, { 1500000000, "1.50 GB" }, { 1500000000000, "1.50 TB" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autofree char *text = valise_size_format (sizes[i].bytes);
    g_assert_cmpstr (text, ==, sizes[i].text);
  }
  for (guint64 bytes = 1; bytes < G_GUINT64_CONSTANT (1) << 60; bytes = bytes * 7 / 3 + 1) {
    g_autofree char *text = valise_size_format (bytes);
    guint64 again = 0;
    g_assert_true (valise_size_parse (text, &again, NULL));
    g_assert_cmpfloat (fabs ((double) again / (double) bytes - 1), <=, 0.051);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/size/parse", test_parse);
  g_test_add_func ("/size/refuses-everything-else", test_hostile);
  g_test_add_func ("/size/format", test_format);
  return g_test_run ();
}
