/* caches.c: models that other programs keep: an Ollama manifest names a blob, a hub cache folder the snapshot that is current. */
#include "app/library/library-private.h"

#include "engine/json_reader.h"

#include <glib/gstdio.h>
#include <string.h>

enum { MAX_MANIFEST = 1 << 20 };

/* "sha256:..." as the name of a blob, or NULL. */
static char *blob_name (const char *digest)
{
  gsize length = strlen (digest);
  if (!g_str_has_prefix (digest, "sha256:") || length != 7 + 64 || strspn (digest + 7, "0123456789abcdef") != 64)
    return NULL;
  return g_strconcat ("sha256-", digest + 7, NULL);
}

static char *model_layer (JsonNode *manifest)
{
  JsonNode *layers = JSON_NODE_HOLDS_OBJECT (manifest) ? json_object_get_member (json_node_get_object (manifest), "layers") : NULL;
  JsonArray *list = layers && JSON_NODE_HOLDS_ARRAY (layers) ? json_node_get_array (layers) : NULL;
  for (guint i = 0; list && i < json_array_get_length (list); i++) {
    JsonNode *node = json_array_get_element (list, i);
    JsonObject *layer = JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
    if (layer && g_strcmp0 (json_object_get_string_member_with_default (layer, "mediaType", NULL), "application/vnd.ollama.image.model") == 0)
      return blob_name (json_object_get_string_member_with_default (layer, "digest", ""));
  }
  return NULL;
}

/* .../models/manifests/HOST/library/NAME/TAG -> .../models/blobs/sha256-... */
static char *from_manifest (const char *path, char **name, GError **error)
{
  const char *at = strstr (path, "/manifests/");
  GStatBuf info;
  if (!at || g_stat (path, &info) < 0 || !S_ISREG (info.st_mode) || info.st_size > MAX_MANIFEST)
    return NULL;
  g_autofree char *text = NULL;
  gsize size;
  if (!g_file_get_contents (path, &text, &size, NULL))
    return NULL;
  g_autoptr (JsonNode) node = eng_json_parse (text, size, NULL);
  g_autofree char *blob = node ? model_layer (node) : NULL;
  if (!blob) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is no manifest that names a model: choose one of Ollama's, or a model's file", path);
    return NULL;
  }
  g_autofree char *folder = g_path_get_dirname (path), *model = g_path_get_basename (folder), *tag = g_path_get_basename (path);
  *name = strcmp (tag, "latest") == 0 ? g_strdup (model) : g_strconcat (model, "-", tag, NULL);
  return g_strdup_printf ("%.*s/blobs/%s", (int) (at - path), path, blob);
}

/* .../models--MAKER--NAME -> its snapshot that refs/main names, or the only one. */
static char *from_hub (const char *path, char **name)
{
  g_autofree char *base = g_path_get_basename (path), *snapshots = g_build_filename (path, "snapshots", NULL), *ref = g_build_filename (path, "refs", "main", NULL);
  g_autofree char *commit = NULL;
  if (!g_str_has_prefix (base, "models--") || !g_file_test (snapshots, G_FILE_TEST_IS_DIR))
    return NULL;
  if (g_file_get_contents (ref, &commit, NULL, NULL))
    g_strstrip (commit);
  if (!commit || *commit == '\0' || *commit == '.' || strchr (commit, '/')) {
    g_autoptr (GDir) dir = g_dir_open (snapshots, 0, NULL);
    g_free (commit);
    commit = g_strdup (dir ? g_dir_read_name (dir) : NULL);
  }
  const char *dashes = strstr (base + strlen ("models--"), "--");
  *name = g_strdup (dashes ? dashes + 2 : base + strlen ("models--"));
  return commit ? g_build_filename (snapshots, commit, NULL) : NULL;
}

char *valise_resolve_cache (const char *path, char **name, GError **error)
{
  *name = NULL;
  char *found = g_file_test (path, G_FILE_TEST_IS_DIR) ? from_hub (path, name) : from_manifest (path, name, error);
  return found || (error && *error) ? found : g_strdup (path);
}
