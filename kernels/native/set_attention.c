/* Attention inside small sets, weights dropped by Philox numbers, forward and backward; see ../set_attention.

   Shapes: B sets, N tokens a set, h heads, d head dimension; q, k and v lie as [B, N, 3, h, d]. One head of one set is
   worked on at a time, in fp32, from buffers that stay in the first cache. Loops over d = 32, SCALE's own, have a copy
   in which the compiler knows it: a quarter less time (2-core EPYC, Zen 5, 2026-11-21). */
#include <stdlib.h>

#include "philox.h"

enum { LANES = 16, ROWS = 4, USUAL_DIM = 32 };

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

typedef struct {
    int64_t tokens, heads, dim;
    number_format format;
    float scale;
    int drops;
    drawing dropout;
} attention;

/* Buffers of one thread, rows of tokens; `span` is N and `wide` is d, rounded up to whole vectors. What lies behind
   d is 0, and what lies behind N may be computed but is never used. */
typedef struct {
    int64_t span, wide;
    float *q, *k, *v, *turned_k, *turned_v, *weights, *factors, *slopes, *grad, *gq, *gk, *gv;
} workspace;

INLINE int64_t whole(int64_t numbers) { return (numbers + LANES - 1) / LANES * LANES; }

static int64_t buffers(int64_t span, int64_t wide) { return 9 * span * wide + 3 * span * span; }

static void divide(workspace *w, float *memory, int64_t span, int64_t wide) {
    float **rows[] = {&w->q, &w->k, &w->v, &w->turned_k, &w->turned_v, &w->grad, &w->gq, &w->gk, &w->gv};
    float **squares[] = {&w->weights, &w->factors, &w->slopes};
    w->span = span;
    w->wide = wide;
    for (int i = 0; i < 9; i++, memory += span * wide) *rows[i] = memory;
    for (int i = 0; i < 3; i++, memory += span * span) *squares[i] = memory;
}

/* q, k, v of one head, the first `length` tokens. */
INLINE void load(const attention *a, workspace *w, const void *qkv, int64_t head, int64_t length, int64_t dim) {
    int64_t row = 3 * a->heads * dim, wide = whole(dim);
    for (int64_t n = 0; n < length; n++) {
        read_row(w->q + n * wide, qkv, n * row + head * dim, dim, a->format);
        read_row(w->k + n * wide, qkv, n * row + (a->heads + head) * dim, dim, a->format);
        read_row(w->v + n * wide, qkv, n * row + (2 * a->heads + head) * dim, dim, a->format);
    }
}

/* [length, d] as [d, span], zeros behind the tokens. */
INLINE void turn(float *turned, const float *rows, int64_t span, int64_t length, int64_t dim) {
    for (int64_t c = 0; c < dim; c++)
        for (int64_t n = 0; n < span; n++) turned[c * span + n] = n < length ? rows[n * whole(dim) + c] : 0.0f;
}

/* Products [4, span] of four rows [4, d] with every token, of `turned` [d, span]. */
INLINE void multiply(float *products, const float *rows, const float *turned, int64_t span, int64_t dim) {
    for (int64_t start = 0; start < span; start += LANES) {
        vector sums[ROWS] = {{0}};
        for (int64_t c = 0; c < dim; c++)
            for (int r = 0; r < ROWS; r++)
                sums[r] += rows[r * whole(dim) + c] * *(const vector *)(turned + c * span + start);
        for (int r = 0; r < ROWS; r++) *(vector *)(products + r * span + start) = sums[r];
    }
}

/* Four sums [4, d] of rows [length, d], weighted by [4, span]. */
INLINE void mix(float *out, const float *weights, const float *rows, int64_t span, int64_t length, int64_t dim) {
    int64_t wide = whole(dim);
    for (int64_t start = 0; start < wide; start += LANES) {
        vector sums[ROWS] = {{0}};
        for (int64_t n = 0; n < length; n++)
            for (int r = 0; r < ROWS; r++)
                sums[r] += weights[r * span + n] * *(const vector *)(rows + n * wide + start);
        for (int r = 0; r < ROWS; r++) *(vector *)(out + r * wide + start) = sums[r];
    }
}

INLINE void add_row(float *to, float weight, const float *row, int64_t dim) {
#pragma omp simd
    for (int64_t c = 0; c < dim; c++) to[c] += weight * row[c];
}

/* What dropout multiplies the weights by: [length, span]; of each query the blocks of 8 keys one after the other. */
INLINE void draw_factors(const attention *a, workspace *w, int64_t head, uint32_t row, int64_t length) {
    int64_t blocks = (length + NUMBERS_A_COUNTER - 1) / NUMBERS_A_COUNTER, query = 0, block = 0;
    while (query < length) {
        uint32_t index[COUNTERS];
        float drawn[NUMBERS], behind[NUMBERS_A_COUNTER], *place[COUNTERS];
        for (int i = 0; i < COUNTERS; i++) {
            place[i] = query < length ? w->factors + query * w->span + NUMBERS_A_COUNTER * block : behind;
            index[i] = (uint32_t)(head << 21 | query << 9 | block);
            if (++block == blocks) {
                block = 0;
                query++;
            }
        }
        draw(&a->dropout, index, row, drawn);
        for (int i = 0; i < COUNTERS; i++)
            memcpy(place[i], drawn + NUMBERS_A_COUNTER * i, NUMBERS_A_COUNTER * sizeof *drawn);
    }
}

/* Softmax weights [length, span] of one head, zero behind the keys, and what dropout multiplies them by. */
INLINE void weigh(const attention *a, workspace *w, int64_t head, uint32_t row, int64_t length, int64_t dim) {
    int64_t span = w->span;
    turn(w->turned_k, w->k, span, length, dim);
    if (a->drops)
        draw_factors(a, w, head, row, length);
    else
        for (int64_t i = 0; i < length * span; i++) w->factors[i] = 1.0f;
    for (int64_t i = 0; i < length; i += ROWS)
        multiply(w->weights + i * span, w->q + i * whole(dim), w->turned_k, span, dim);
    for (int64_t i = 0; i < length; i++) {
        float *weights = w->weights + i * span;
#pragma omp simd
        for (int64_t n = 0; n < span; n++) weights[n] *= a->scale;
        float most = -INFINITY, sum = 0.0f;
        for (int64_t n = 0; n < length; n++) most = weights[n] > most ? weights[n] : most;
#pragma omp simd
        for (int64_t n = 0; n < span; n++) weights[n] = n < length ? exp_nonpositive(weights[n] - most) : 0.0f;
        for (int64_t n = 0; n < length; n++) sum += weights[n];
        float share = 1.0f / sum;
#pragma omp simd
        for (int64_t n = 0; n < span; n++) weights[n] *= share;
    }
}

/* Zeros behind the set. */
INLINE void clear_rows(const attention *a, float *rows, int64_t length, int64_t dim) {
    memset(rows + length * whole(dim), 0, (a->tokens - length) * whole(dim) * sizeof *rows);
}

INLINE void attend_set(
    const attention *a, workspace *w, const void *qkv, uint32_t row, int64_t length, void *out, int64_t dim) {
    int64_t span = w->span, wide = whole(dim);
    float *to = w->grad;
    for (int64_t head = 0; head < a->heads; head++) {
        load(a, w, qkv, head, length, dim);
        weigh(a, w, head, row, length, dim);
        for (int64_t i = 0; i < length * span; i++) w->weights[i] *= w->factors[i];
        for (int64_t i = 0; i < length; i += ROWS) mix(to + i * wide, w->weights + i * span, w->v, span, length, dim);
        clear_rows(a, to, length, dim);
        for (int64_t i = 0; i < a->tokens; i++)
            write_row(out, to + i * wide, (i * a->heads + head) * dim, dim, a->format);
    }
}

CLONES void scalefast_attend_set(
    const attention *a, workspace *w, const void *qkv, uint32_t row, int64_t length, void *out) {
    if (a->dim == USUAL_DIM)
        attend_set(a, w, qkv, row, length, out, USUAL_DIM);
    else
        attend_set(a, w, qkv, row, length, out, a->dim);
}

/* With P the weights, M what dropout multiplies by and G the output's gradient: dV = (PM)^T G, dP = (G V^T) M,
   dS = P (dP - rowsum(P dP)), dQ = scale dS K, dK = scale dS^T Q. */
INLINE void find_gradients(const attention *a, workspace *w, int64_t length, int64_t dim) {
    int64_t span = w->span, wide = whole(dim);
    for (int64_t i = 0; i < length; i += ROWS)
        multiply(w->slopes + i * span, w->grad + i * wide, w->turned_v, span, dim);
    memset(w->gk, 0, span * wide * sizeof *w->gk);
    memset(w->gv, 0, span * wide * sizeof *w->gv);
    for (int64_t i = 0; i < length; i++) {
        const float *weights = w->weights + i * span, *factors = w->factors + i * span;
        float *slopes = w->slopes + i * span, mean = 0.0f;
        for (int64_t n = 0; n < length; n++) {
            slopes[n] *= factors[n];
            mean += weights[n] * slopes[n];
        }
        for (int64_t n = 0; n < length; n++) {
            slopes[n] = weights[n] * (slopes[n] - mean) * a->scale;
            add_row(w->gv + n * wide, weights[n] * factors[n], w->grad + i * wide, dim);
            add_row(w->gk + n * wide, slopes[n], w->q + i * wide, dim);
        }
    }
    for (int64_t i = 0; i < length; i += ROWS) mix(w->gq + i * wide, w->slopes + i * span, w->k, span, length, dim);
    clear_rows(a, w->gq, length, dim);
}

INLINE void attend_set_backward(
    const attention *a, workspace *w, const void *qkv, const void *grad_out, uint32_t row, int64_t length,
    void *grad_qkv, int64_t dim) {
    int64_t line = 3 * a->heads * dim, wide = whole(dim);
    for (int64_t head = 0; head < a->heads; head++) {
        load(a, w, qkv, head, length, dim);
        weigh(a, w, head, row, length, dim);
        turn(w->turned_v, w->v, w->span, length, dim);
        for (int64_t n = 0; n < length; n++)
            read_row(w->grad + n * wide, grad_out, (n * a->heads + head) * dim, dim, a->format);
        find_gradients(a, w, length, dim);
        for (int64_t n = 0; n < a->tokens; n++) {
            write_row(grad_qkv, w->gq + n * wide, n * line + head * dim, dim, a->format);
            write_row(grad_qkv, w->gk + n * wide, n * line + (a->heads + head) * dim, dim, a->format);
            write_row(grad_qkv, w->gv + n * wide, n * line + (2 * a->heads + head) * dim, dim, a->format);
        }
    }
}

CLONES void scalefast_attend_set_backward(
    const attention *a, workspace *w, const void *qkv, const void *grad_out, uint32_t row, int64_t length,
    void *grad_qkv) {
    if (a->dim == USUAL_DIM)
        attend_set_backward(a, w, qkv, grad_out, row, length, grad_qkv, USUAL_DIM);
    else
        attend_set_backward(a, w, qkv, grad_out, row, length, grad_qkv, a->dim);
}

/* qkv [B, N, 3, h, d]; lengths int64 [B] or null; rows int64 [B]. With grad_out null: out [B, N, h, d] is written, else
   out is the gradient of qkv. Returns 0, or 1 where there is no memory. */
EXPORT int scalefast_set_attention(
    const char *qkv, const char *grad_out, const int64_t *lengths, const int64_t *rows, int64_t sets, int64_t tokens,
    int64_t heads, int64_t dim, int format, int32_t limit, float kept, int64_t seed, int64_t step, uint32_t site,
    char *out, int threads) {
    const attention a = {tokens, heads, dim, (number_format)format, 1.0f / sqrtf((float)dim), limit > INT16_MIN,
                         describe_drawing(seed, step, site, limit, kept)};
    int64_t bytes = tokens * heads * dim * (format == FP32 ? 4 : 2);
    int64_t span = whole(tokens), wide = whole(dim);
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        workspace w;
        float *memory = calloc(buffers(span, wide), sizeof *memory);
        failed = memory == 0;
        if (!failed) divide(&w, memory, span, wide);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < sets; b++) {
            int64_t length = lengths ? lengths[b] : tokens;
            if (failed) continue;
            if (grad_out)
                scalefast_attend_set_backward(
                    &a, &w, qkv + 3 * b * bytes, grad_out + b * bytes, (uint32_t)rows[b], length, out + 3 * b * bytes);
            else
                scalefast_attend_set(&a, &w, qkv + 3 * b * bytes, (uint32_t)rows[b], length, out + b * bytes);
        }
        free(memory);
    }
    return failed;
}
