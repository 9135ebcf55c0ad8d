/* error.c: the library's error domain, and the few errors that are said in several places. */
#include "app/library/library-private.h"

#include <errno.h>

G_DEFINE_QUARK (valise-error-quark, valise_error)

gboolean valise_fail_errno (GError **error, int code, const char *doing, const char *path)
{
  if (code == ENOSPC || code == EDQUOT || code == EFBIG)
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NO_SPACE,
                 "%s %s: %s: free some space, or move the library with VALISE_HOME", doing, path, g_strerror (code));
  else
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_STORE, "%s %s: %s: check that the path exists and may be used", doing, path,
                 g_strerror (code));
  return FALSE;
}

gboolean valise_check_cancelled (GCancellable *cancellable, GError **error)
{
  if (!g_cancellable_is_cancelled (cancellable))
    return TRUE;
  g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "cancelled: nothing was kept");
  return FALSE;
}
