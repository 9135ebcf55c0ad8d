/* progress_text.h: what the library says it is doing, in the person's language. */
#ifndef VALISE_PROGRESS_TEXT_H
#define VALISE_PROGRESS_TEXT_H

/* The translation of a progress report's sentence; the sentence itself when it is none of those known here. Not to be freed. */
const char *valise_progress_text (const char *what);

#endif
