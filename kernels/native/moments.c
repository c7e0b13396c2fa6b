/* Mean, standard deviation and largest value of each column over the clips of a set, a few at a time.

   Shapes: B sets, V clips a set, W numbers a clip. */
#include "native.h"

enum { COLUMNS = 64 }; /* numbers of a clip at a time: their three results stay in registers, their clips in the first cache */

/* Sums in the order of the clips; the deviation from the mean that is known by then, so that nothing cancels. */
INLINE void set_moments(
    const void *x, int64_t clips, int64_t width, int64_t first, int64_t count, number_format format, float *mean,
    float *std, float *most) {
    float row[COLUMNS], sums[COLUMNS] = {0}, squares[COLUMNS] = {0}, top[COLUMNS];
    for (int64_t i = 0; i < count; i++) top[i] = -INFINITY;
    for (int64_t v = 0; v < clips; v++) {
        read_row(row, x, v * width + first, count, format);
        for (int64_t i = 0; i < count; i++) {
            sums[i] += row[i];
            /* a NaN stays, as in PyTorch's amax */
            top[i] = row[i] > top[i] || row[i] != row[i] ? row[i] : top[i];
        }
    }
    for (int64_t i = 0; i < count; i++) sums[i] /= (float)clips;
    for (int64_t v = 0; v < clips; v++) {
        read_row(row, x, v * width + first, count, format);
        for (int64_t i = 0; i < count; i++) squares[i] += (row[i] - sums[i]) * (row[i] - sums[i]);
    }
    for (int64_t i = 0; i < count; i++) {
        mean[first + i] = sums[i];
        std[first + i] = sqrtf(squares[i] / (float)clips);
        most[first + i] = top[i];
    }
}

CLONES void scalefast_set_moments(
    const void *x, int64_t clips, int64_t width, number_format format, float *mean, float *std, float *most) {
    int64_t first = 0;
    for (; first + COLUMNS <= width; first += COLUMNS)
        if (format == FP32)
            set_moments(x, clips, width, first, COLUMNS, FP32, mean, std, most);
        else
            set_moments(x, clips, width, first, COLUMNS, BF16, mean, std, most);
    if (first < width) set_moments(x, clips, width, first, width - first, format, mean, std, most);
}

/* x: sets of [V, W] that begin `stride` numbers apart; lengths int64 [B] or null: the clips that are there; mean, std
   and most fp32 [B, W]. */
EXPORT void scalefast_moments(
    const char *x, const int64_t *lengths, int64_t sets, int64_t clips, int64_t width, int64_t stride, int format,
    float *mean, float *std, float *most, int threads) {
    int64_t bytes = format == FP32 ? 4 : 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < sets; b++)
        scalefast_set_moments(
            x + b * stride * bytes, lengths ? lengths[b] : clips, width, (number_format)format, mean + b * width,
            std + b * width, most + b * width);
}
