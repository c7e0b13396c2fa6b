/* The pass of InfoNCE over rows of logits, after the matrix product that makes them.

   Shapes: M rows, N keys. Plain PyTorch reads and writes the logits five times for the same numbers. */
#include "native.h"

INLINE float largest(const float *row, int64_t count) {
    float most = -INFINITY;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) most = row[i] > most ? row[i] : most;
    return most;
}

/* Largest logit and log-sum-exp of one row; a NaN anywhere makes the log-sum-exp NaN, as in PyTorch. */
CLONES void scalefast_row_statistics(const float *row, int64_t count, float *most, float *lse) {
    float top = largest(row, count), sum = 0.0f, nothing = 0.0f;
#pragma omp simd reduction(+ : sum, nothing)
    for (int64_t i = 0; i < count; i++) {
        sum += exp_nonpositive(row[i] - top);
        nothing += row[i] == row[i] ? 0.0f : NAN;
    }
    *most = top;
    *lse = logf(sum) + top + nothing;
}

/* logits -> weight * (exp(logit - lse) - [key is the positive]), in place; the positive may lie beyond these keys. */
CLONES void scalefast_row_slope(float *row, int64_t count, int64_t positive, float lse, float weight) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) row[i] = weight * exp_nonpositive(row[i] - lse);
    if (positive >= 0 && positive < count) row[positive] -= weight;
}

EXPORT void scalefast_infonce_rows(
    const float *logits, int64_t rows, int64_t keys, float *most, float *lse, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) scalefast_row_statistics(logits + i * keys, keys, most + i, lse + i);
}

EXPORT void scalefast_infonce_slopes(
    float *logits, int64_t rows, int64_t keys, const int64_t *positives, const float *lse, const float *weights,
    int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++)
        scalefast_row_slope(logits + i * keys, keys, positives[i], lse[i], weights[i]);
}
