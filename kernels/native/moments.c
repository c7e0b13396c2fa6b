/* Mean, standard deviation and largest value of each column over the clips of a set, in one pass over memory.

   Shapes: B sets, V clips a set, W numbers a clip. */
#include <stdlib.h>

#include "native.h"

/* Sums in the order of the clips; the deviation from the mean that is known by then, so that nothing cancels. */
CLONES void scalefast_set_moments(
    const void *x, int64_t clips, int64_t width, number_format format, float *row, float *mean, float *std,
    float *most) {
    for (int64_t v = 0; v < clips; v++) {
        read_row(row, x, v * width, width, format);
        for (int64_t i = 0; i < width; i++) {
            mean[i] = v ? mean[i] + row[i] : row[i];
            /* a NaN stays, as in PyTorch's amax */
            most[i] = v && !(row[i] > most[i] || row[i] != row[i]) ? most[i] : row[i];
        }
    }
    for (int64_t i = 0; i < width; i++) {
        mean[i] /= (float)clips;
        std[i] = 0.0f;
    }
    for (int64_t v = 0; v < clips; v++) {
        read_row(row, x, v * width, width, format);
        for (int64_t i = 0; i < width; i++) std[i] += (row[i] - mean[i]) * (row[i] - mean[i]);
    }
    for (int64_t i = 0; i < width; i++) std[i] = sqrtf(std[i] / (float)clips);
}

/* x: sets of [V, W] that begin `stride` numbers apart; lengths int64 [B] or null: the clips that are there; mean, std
   and most fp32 [B, W]. */
EXPORT int scalefast_moments(
    const char *x, const int64_t *lengths, int64_t sets, int64_t clips, int64_t width, int64_t stride, int format,
    float *mean, float *std, float *most, int threads) {
    int64_t bytes = format == FP32 ? 4 : 2;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *row = malloc(width * sizeof *row);
        failed = row == 0;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < sets; b++)
            if (!failed)
                scalefast_set_moments(
                    x + b * stride * bytes, lengths ? lengths[b] : clips, width, (number_format)format, row,
                    mean + b * width, std + b * width, most + b * width);
        free(row);
    }
    return failed;
}
