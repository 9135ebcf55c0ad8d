/* utf8.h: one code point at a time from bytes that may be anything. A byte that begins no well-formed character stands for
 * itself, so that text is walked to its end whatever it holds. */
#ifndef ENG_UTF8_H
#define ENG_UTF8_H

#include <glib.h>

#define ENG_UTF8_BROKEN 0xFFFFFFFFu

/* Length in bytes of the character at p (p < end), 1 for a byte that begins none; *code is then ENG_UTF8_BROKEN. */
static inline guint eng_utf8_next (const char *p, const char *end, guint32 *code)
{
  const guint8 *s = (const guint8 *) p;
  gsize left = (gsize) (end - p);
  guint32 c = s[0];
  if (c < 0x80) {
    *code = c;
    return 1;
  }
  guint n = c >= 0xF0 && c <= 0xF4 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 0;
  if (n != 0 && c <= 0xF4 && n <= left) {
    guint32 value = c & (0x7Fu >> n);
    guint i = 1;
    for (; i < n && (s[i] & 0xC0) == 0x80; i++)
      value = value << 6 | (s[i] & 0x3F);
    /* Shortest form only, no surrogates, nothing past the last code point. */
    if (i == n && value >= (n == 2 ? 0x80u : n == 3 ? 0x800u : 0x10000u) && value <= 0x10FFFF && (value & 0xFFFFF800u) != 0xD800) {
      *code = value;
      return n;
    }
  }
  *code = ENG_UTF8_BROKEN;
  return 1;
}

#endif
