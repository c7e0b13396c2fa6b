/* Attention inside small sets, weights dropped by Philox numbers, forward and backward; see ../set_attention.

   Shapes: B sets, N tokens a set, h heads, d head dimension; q, k and v lie as [B, N, 3, h, d]. One head of one set is
   worked on at a time, in fp32, from buffers that stay in the first cache. Loops over d = 32, SCALE's own, have a copy
   in which the compiler knows it: a quarter less time (2-core EPYC, Zen 5, 2026-11-21). */
#include <stdlib.h>

#include "philox.h"

enum { LANES = 16, USUAL_DIM = 32 };

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

typedef struct {
    int64_t tokens, heads, dim;
    number_format format;
    float scale;
    int drops;
    drawing dropout;
} attention;

/* Buffers of one thread; `span` is N rounded up to whole vectors. */
typedef struct {
    int64_t span;
    float *q, *k, *v, *turned_k, *turned_v, *weights, *factors, *grad, *slopes, *gq, *gk, *gv;
} workspace;

static int64_t span_of(int64_t tokens) { return (tokens + LANES - 1) / LANES * LANES; }

static void divide(workspace *w, float *memory, int64_t tokens, int64_t dim) {
    int64_t span = w->span = span_of(tokens), block = span * dim;
    float **parts[] = {&w->q, &w->k, &w->v, &w->grad, &w->gq, &w->gk, &w->gv};
    for (int i = 0; i < 7; i++, memory += block) *parts[i] = memory;
    w->turned_k = memory;
    w->turned_v = memory + block;
    w->weights = memory + 2 * block;
    w->factors = w->weights + span * span;
    w->slopes = w->factors + span * span;
}

/* q, k, v of one head, the first `length` tokens. */
INLINE void load(const attention *a, workspace *w, const void *qkv, int64_t head, int64_t length, int64_t dim) {
    int64_t row = 3 * a->heads * dim;
    for (int64_t n = 0; n < length; n++) {
        read_row(w->q + n * dim, qkv, n * row + head * dim, dim, a->format);
        read_row(w->k + n * dim, qkv, n * row + (a->heads + head) * dim, dim, a->format);
        read_row(w->v + n * dim, qkv, n * row + (2 * a->heads + head) * dim, dim, a->format);
    }
}

/* [length, d] as [d, span], zeros behind the tokens. */
INLINE void turn(float *turned, const float *rows, int64_t span, int64_t length, int64_t dim) {
    for (int64_t c = 0; c < dim; c++)
        for (int64_t n = 0; n < span; n++) turned[c * span + n] = n < length ? rows[n * dim + c] : 0.0f;
}

/* Products [span] of a row [d] with every token, of `turned` [d, span]. */
INLINE void multiply(float *products, const float *row, const float *turned, int64_t span, int64_t dim) {
    for (int64_t start = 0; start < span; start += LANES) {
        vector sums = {0};
        for (int64_t c = 0; c < dim; c++) sums += row[c] * *(const vector *)(turned + c * span + start);
        *(vector *)(products + start) = sums;
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
    for (int64_t i = 0; i < length; i++) {
        float *weights = w->weights + i * span;
        multiply(weights, w->q + i * dim, w->turned_k, span, dim);
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

INLINE void attend_set(
    const attention *a, workspace *w, const void *qkv, uint32_t row, int64_t length, void *out, int64_t dim) {
    for (int64_t head = 0; head < a->heads; head++) {
        load(a, w, qkv, head, length, dim);
        weigh(a, w, head, row, length, dim);
        for (int64_t i = 0; i < a->tokens; i++) {
            const float *weights = w->weights + i * w->span, *factors = w->factors + i * w->span;
            float *to = w->grad;
            memset(to, 0, dim * sizeof *to);
            for (int64_t n = 0; i < length && n < length; n++)
                add_row(to, weights[n] * factors[n], w->v + n * dim, dim);
            write_row(out, to, (i * a->heads + head) * dim, dim, a->format);
        }
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
   dS = P (dP - rowsum(P dP)), dQ = scale dS K, dK = scale dS^T Q. One query adds its part to all of them. */
INLINE void add_gradients(const attention *a, workspace *w, int64_t i, int64_t length, int64_t dim) {
    const float *grad = w->grad + i * dim, *q = w->q + i * dim;
    const float *weights = w->weights + i * w->span, *factors = w->factors + i * w->span;
    float *slopes = w->slopes, mean = 0.0f;
    multiply(slopes, grad, w->turned_v, w->span, dim);
    for (int64_t n = 0; n < length; n++) {
        slopes[n] *= factors[n];
        mean += weights[n] * slopes[n];
        add_row(w->gv + n * dim, weights[n] * factors[n], grad, dim);
    }
    for (int64_t n = 0; n < length; n++) {
        float slope = weights[n] * (slopes[n] - mean) * a->scale;
        add_row(w->gq + i * dim, slope, w->k + n * dim, dim);
        add_row(w->gk + n * dim, slope, q, dim);
    }
}

INLINE void attend_set_backward(
    const attention *a, workspace *w, const void *qkv, const void *grad_out, uint32_t row, int64_t length,
    void *grad_qkv, int64_t dim) {
    int64_t line = 3 * a->heads * dim;
    for (int64_t head = 0; head < a->heads; head++) {
        load(a, w, qkv, head, length, dim);
        weigh(a, w, head, row, length, dim);
        turn(w->turned_v, w->v, w->span, length, dim);
        for (int64_t n = 0; n < length; n++)
            read_row(w->grad + n * dim, grad_out, (n * a->heads + head) * dim, dim, a->format);
        memset(w->gq, 0, 3 * w->span * dim * sizeof *w->gq); /* gq, gk and gv, which lie in a row */
        for (int64_t i = 0; i < length; i++) add_gradients(a, w, i, length, dim);
        for (int64_t n = 0; n < a->tokens; n++) { /* zeros behind the set, where the buffers were left at 0 */
            write_row(grad_qkv, w->gq + n * dim, n * line + head * dim, dim, a->format);
            write_row(grad_qkv, w->gk + n * dim, n * line + (a->heads + head) * dim, dim, a->format);
            write_row(grad_qkv, w->gv + n * dim, n * line + (2 * a->heads + head) * dim, dim, a->format);
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
    int64_t span = span_of(tokens);
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        workspace w;
        float *memory = calloc(9 * span * dim + 2 * span * span + span, sizeof *memory);
        failed = memory == 0;
        if (!failed) divide(&w, memory, tokens, dim);
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
