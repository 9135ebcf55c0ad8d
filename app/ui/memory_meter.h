/* memory_meter.h: what the open model was planned to take, what the program takes now, and how much of the context is left. */
#ifndef VALISE_MEMORY_METER_H
#define VALISE_MEMORY_METER_H

#include <adwaita.h>

#include "app/library/runner.h"

G_BEGIN_DECLS

#define VALISE_TYPE_MEMORY_METER (valise_memory_meter_get_type ())
G_DECLARE_FINAL_TYPE (ValiseMemoryMeter, valise_memory_meter, VALISE, MEMORY_METER, AdwBin)

void valise_memory_meter_set_runner (ValiseMemoryMeter *self, ValiseRunner *runner);

G_END_DECLS
#endif
