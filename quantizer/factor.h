/* factor.h: the triangular factor of a Hessian that turns error compensation into scalar quantization, column by column.
 * H = V V^T with V upper triangular, so a row's loss e H e^T is sum_j V_jj^2 (e_j + sum_{k<j} e_k F_kj)^2 with F_kj = V_kj / V_jj:
 * quantizing w_j + sum_{k<j} e_k F_kj to the nearest value minimises term j given the choices before it. This is LDLQ (Chee et al.
 * 2023, QuIP, section 3), the same numbers as GPTQ's (Frantar et al. 2022) without the inverse. */
#ifndef QZ_FACTOR_H
#define QZ_FACTOR_H

#include "engine/workers.h"

/* h [n][n]: the upper triangle on entry; on return F, unit upper triangular, zeros below. pivots [n] = V_jj^2. `damping` times the
 * mean of the diagonal is added to the diagonal; ten times as much again while that is not enough. Zero moments, of an input that is always
 * 0, give the identity and pivots 0. FALSE when they are not finite numbers. */
gboolean qz_factor (EngWorkers *workers, float *h, guint n, double damping, float *pivots);
/* Rows e [n][cols] become e F^-1: errors as they are before compensation, such as compensation leaves them. */
void qz_factor_solve (const float *f, guint n, guint cols, float *e);

#endif
