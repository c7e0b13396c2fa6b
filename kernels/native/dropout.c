/* Dropout by Philox numbers, forward and (of the gradient) backward: the same multiplication.

   Shapes: S sets, n numbers a set. */
#include "philox.h"

CLONES void scalefast_drop_set(
    const drawing *d, const void *x, uint32_t row, int64_t start, int64_t count, number_format format, void *out) {
    uint32_t index[COUNTERS];
    float values[NUMBERS], factors[NUMBERS];
    for (int64_t done = 0; done < count; done += NUMBERS) {
        int64_t part = count - done < NUMBERS ? count - done : NUMBERS;
        for (int i = 0; i < COUNTERS; i++) index[i] = (uint32_t)((start + done) / NUMBERS_A_COUNTER + i);
        draw(d, index, row, factors);
        read_row(values, x, done, part, format);
#pragma omp simd
        for (int64_t i = 0; i < part; i++) values[i] *= factors[i];
        write_row(out, values, done, part, format);
    }
}

enum { PIECE = 4096 };

/* x and out [S, n]; rows int64 [S]. A set is cut into pieces, so that few large ones keep all threads busy too. */
EXPORT void scalefast_dropout(
    const char *x, const int64_t *rows, int64_t sets, int64_t numbers, int format, int32_t limit, float kept,
    int64_t seed, int64_t step, uint32_t site, char *out, int threads) {
    const drawing d = describe_drawing(seed, step, site, limit, kept);
    int64_t bytes = format == FP32 ? 4 : 2, pieces = (numbers + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (int64_t s = 0; s < sets; s++)
        for (int64_t p = 0; p < pieces; p++) {
            int64_t start = p * PIECE, count = numbers - start < PIECE ? numbers - start : PIECE;
            int64_t place = (s * numbers + start) * bytes;
            scalefast_drop_set(&d, x + place, (uint32_t)rows[s], start, count, (number_format)format, out + place);
        }
}
