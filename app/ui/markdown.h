/* markdown.h: GitHub-flavoured Markdown as a tree of blocks whose inline text is Pango markup, ready for widgets.
 * No widget here: any thread. */
#ifndef VALISE_MARKDOWN_H
#define VALISE_MARKDOWN_H

#include <glib.h>

G_BEGIN_DECLS

typedef enum {
  VALISE_MARKDOWN_PARAGRAPH, VALISE_MARKDOWN_HEADING, VALISE_MARKDOWN_CODE, VALISE_MARKDOWN_LIST, VALISE_MARKDOWN_ITEM,
  VALISE_MARKDOWN_QUOTE, VALISE_MARKDOWN_TABLE, VALISE_MARKDOWN_RULE
} ValiseMarkdownKind;

typedef struct {
  ValiseMarkdownKind kind;
  guint level;          /* heading: 1..6; table: columns */
  char *text;           /* paragraph, heading: Pango markup; code: as written; item: its marker, "•", "3." or a tick box */
  char *info;           /* code: the language named after the fence; table: one of 'l', 'c', 'r' for each column */
  GPtrArray *children;  /* list, item, quote: blocks */
  GPtrArray *cells;     /* table: Pango markup, row by row, the header row first */
  gsize offset;         /* where a top-level block begins in the source, in bytes */
} ValiseMarkdownBlock;

/* Of ValiseMarkdownBlock, which the array owns. Nothing of the text is lost: what is not Markdown comes back as text. */
GPtrArray *valise_markdown_parse (const char *text, gsize length);

G_END_DECLS
#endif
