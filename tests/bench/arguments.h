/* arguments.h: numbers on the command line of a bench. */
#ifndef BENCH_ARGUMENTS_H
#define BENCH_ARGUMENTS_H

#include <glib.h>
#include <stdlib.h>

static inline guint argument (int argc, char **argv, int i, guint fallback)
{
  return argc > i ? (guint) strtoul (argv[i], NULL, 10) : fallback;
}

#endif
