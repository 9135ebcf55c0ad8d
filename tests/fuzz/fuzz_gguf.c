/* fuzz_gguf.c: any bytes as a GGUF file: refused with a sentence, or every key and weight can be read. */
#include "tests/fixtures/gguf_bytes.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  int fd = memfd_create ("fuzz", MFD_CLOEXEC);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (write (fd, data, size), ==, (gssize) size);
  g_autofree char *path = g_strdup_printf ("/proc/self/fd/%d", fd);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  close (fd);
  g_assert_true ((gguf == NULL) == (error != NULL));
  if (gguf)
    gguf_walk (gguf);
  else
    g_assert_true (strstr (error->message, path) && !strchr (error->message, '\n'));
  return 0;
}

GByteArray *fuzz_seed (guint i)
{
  return i == 0 ? bytes_good_file () : NULL;
}
