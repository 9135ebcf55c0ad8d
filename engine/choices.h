/* choices.h: multiple choice: how often the answer that a model finds likeliest is the right one (the "acc_norm" of Gao et al. 2021, lm-evaluation-harness, over bytes). */
#ifndef ENG_CHOICES_H
#define ENG_CHOICES_H

#include "engine/session.h"

typedef struct {
  guint questions;
  double accuracy; /* 0..1 */
  gboolean has_reference;
  double reference_accuracy;
  guint gained, lost;       /* questions that the model alone has right, and the reference alone */
  double change, low, high; /* accuracy less the reference's, and the interval that holds it with 95 %, from the pairs */
} EngChoices;

/* text[length]: a JSON object on each line: "question" (text), "choices" (2 or more texts) and "answer" (the place of the right one). For each choice the log-probability of
 * " " and the choice after the question and "\nAnswer:", divided by the bytes of what is predicted; the largest wins. questions: the first so many, 0: all.
 * reference may be NULL; it is always exact. The same result for any number of threads. */
gboolean eng_evaluate_choices (EngModel *model, EngModel *reference, EngWorkers *workers, const char *text, gsize length, guint questions, int activation_bits,
                               int kv_bits, EngChoices *result, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error);

#endif
