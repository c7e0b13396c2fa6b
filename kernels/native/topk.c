/* The k largest numbers of each row, largest first, equals in the order of their columns.

   Shapes: Q rows, N columns, k wanted. A row is compared with its k-th best so far, 64 columns at a time; few pass. */
#include "native.h"

enum { BLOCK = 64 };

/* Takes a candidate into the sorted list; behind its equals, since it comes later. */
INLINE void take(float value, int64_t column, float *best, int64_t *place, int64_t *held, int64_t k) {
    int64_t slot = *held < k ? (*held)++ : k - 1;
    for (; slot > 0 && best[slot - 1] < value; slot--) {
        best[slot] = best[slot - 1];
        place[slot] = place[slot - 1];
    }
    best[slot] = value;
    place[slot] = column;
}

/* One row's best k of `held` before and all columns now; returns how many numbers were NaN. */
CLONES int64_t scalefast_row_topk(
    const float *row, int64_t columns, int64_t first, float *best, int64_t *place, int64_t held, int64_t k) {
    int64_t nothing = 0;
    for (int64_t start = 0; start < columns; start += BLOCK) {
        int64_t stop = start + BLOCK < columns ? start + BLOCK : columns;
        float bar = held < k ? -INFINITY : best[k - 1];
        int32_t above = 0, odd = 0;
#pragma omp simd reduction(+ : above, odd)
        for (int64_t i = start; i < stop; i++) {
            above += row[i] > bar;
            odd += row[i] != row[i];
        }
        nothing += odd;
        if (!above && held == k) continue;
        for (int64_t i = start; i < stop; i++)
            if (held < k || row[i] > best[k - 1]) take(row[i], first + i, best, place, &held, k);
    }
    return nothing;
}

/* Merges columns `first`, first + 1, ... into best and place [Q, k], of which `held` columns are filled already.
   Returns the number of NaN. */
EXPORT int64_t scalefast_topk(
    const float *values, int64_t rows, int64_t columns, int64_t first, float *best, int64_t *place, int64_t held,
    int64_t k, int threads) {
    int64_t nothing = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : nothing)
    for (int64_t i = 0; i < rows; i++)
        nothing += scalefast_row_topk(values + i * columns, columns, first, best + i * k, place + i * k, held, k);
    return nothing;
}
