/* casing.c: upper, lower and title case, character by character so that each keeps its origin. */
#include "engine/jinja/run.h"

#include <string.h>

typedef enum { AS_IS, UP, DOWN, TITLE } Change;

static void add_changed (JinjaBuilder *builder, const JinjaCursor *c, Change change)
{
  if (c->code < 0x80) {
    char ascii = change == AS_IS ? *c->text : change == DOWN ? g_ascii_tolower (*c->text) : g_ascii_toupper (*c->text);
    jinja_builder_add (builder, &ascii, 1, c->from_context);
    return;
  }
  char utf8[6];
  gunichar code = change == DOWN ? g_unichar_tolower (c->code) : change == TITLE ? g_unichar_totitle (c->code) : c->code;
  if (change == UP && g_unichar_toupper (c->code) == c->code && g_unichar_islower (c->code)) {
    char *special = g_utf8_strup (c->text, (gssize) c->length); /* those that become several, as sharp s does */
    char copy[32];
    g_strlcpy (copy, special, sizeof copy);
    g_free (special);
    jinja_builder_add (builder, copy, strlen (copy), c->from_context);
    return;
  }
  if (change == UP)
    code = g_unichar_toupper (c->code);
  jinja_builder_add (builder, utf8, (gsize) g_unichar_to_utf8 (code, utf8), c->from_context);
}

JinjaValue jinja_change_case (JinjaWork *work, const JinjaString *string, JinjaCasing casing)
{
  JinjaBuilder builder;
  JinjaCursor c;
  gboolean in_word = FALSE;
  jinja_builder_init (work, &builder);
  jinja_spend (work, string->length / 8);
  for (jinja_cursor_init (&c, string); jinja_cursor_next (&c);) {
    Change change = casing == JINJA_CASE_UPPER ? UP : casing == JINJA_CASE_LOWER ? DOWN : in_word ? DOWN : TITLE;
    if (casing == JINJA_CASE_SWAP)
      change = g_unichar_isupper (c.code) ? DOWN : g_unichar_islower (c.code) ? UP : AS_IS;
    add_changed (&builder, &c, change);
    in_word = casing == JINJA_CASE_CAPITAL || g_unichar_isalpha (c.code);
  }
  return jinja_builder_finish (&builder);
}
