/* reading_column.h: its child as wide as is comfortable to read, in the middle of what there is. Never asks the child how wide it would
 * like to be: for a long text that is growing, the answer would cost more than drawing it. */
#ifndef VALISE_READING_COLUMN_H
#define VALISE_READING_COLUMN_H

#include <gtk/gtk.h>

G_BEGIN_DECLS

#define VALISE_TYPE_READING_COLUMN (valise_reading_column_get_type ())
G_DECLARE_FINAL_TYPE (ValiseReadingColumn, valise_reading_column, VALISE, READING_COLUMN, GtkWidget)

G_END_DECLS
#endif
