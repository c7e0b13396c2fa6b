/* Attention inside small sets, weights dropped by Philox numbers, forward and backward; see ../set_attention.

   Shapes: B sets, N tokens a set, h heads, d head dimension; q, k and v lie as [B, N, 3, h, d]. One head of one set is
   worked on at a time, in fp32, from buffers that stay in the first cache. */
#include <stdlib.h>

#include "philox.h"

enum { LANES = 16 };

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
    float *q, *k, *v, *turned, *weights, *factors, *grad, *slopes, *gq, *gk, *gv;
} workspace;

static int64_t span_of(int64_t tokens) { return (tokens + LANES - 1) / LANES * LANES; }

static void divide(workspace *w, float *memory, int64_t tokens, int64_t dim) {
    int64_t span = w->span = span_of(tokens), block = span * dim;
    float **parts[] = {&w->q, &w->k, &w->v, &w->grad, &w->gq, &w->gk, &w->gv};
    for (int i = 0; i < 7; i++, memory += block) *parts[i] = memory;
    w->turned = memory;
    w->weights = memory + dim * span;
    w->factors = w->weights + span * span;
    w->slopes = w->factors + span * span;
}

/* q, k, v of one head, the first `length` tokens, and k turned to [d, span] with zeros behind the keys. */
INLINE void load(const attention *a, workspace *w, const void *qkv, int64_t head, int64_t length) {
    int64_t dim = a->dim, row = 3 * a->heads * dim;
    for (int64_t n = 0; n < length; n++) {
        read_row(w->q + n * dim, qkv, n * row + head * dim, dim, a->format);
        read_row(w->k + n * dim, qkv, n * row + (a->heads + head) * dim, dim, a->format);
        read_row(w->v + n * dim, qkv, n * row + (2 * a->heads + head) * dim, dim, a->format);
    }
    for (int64_t c = 0; c < dim; c++)
        for (int64_t n = 0; n < w->span; n++) w->turned[c * w->span + n] = n < length ? w->k[n * dim + c] : 0.0f;
}

/* What dropout multiplies the weights by: [length, span]; of each query the blocks of 8 keys one after the other. */
INLINE void draw_factors(const attention *a, workspace *w, int64_t head, uint32_t row, int64_t length) {
    int64_t blocks = (length + NUMBERS_A_COUNTER - 1) / NUMBERS_A_COUNTER, pairs = length * blocks;
    uint32_t index[COUNTERS];
    float drawn[NUMBERS];
    for (int64_t start = 0; start < pairs; start += COUNTERS) {
        int64_t held = pairs - start < COUNTERS ? pairs - start : COUNTERS;
        for (int64_t i = 0; i < COUNTERS; i++) {
            int64_t pair = i < held ? start + i : start;
            index[i] = (uint32_t)(head << 21 | pair / blocks << 9 | pair % blocks);
        }
        draw(&a->dropout, index, row, drawn);
        for (int64_t i = 0; i < held; i++) {
            int64_t query = (start + i) / blocks, block = (start + i) % blocks;
            memcpy(w->factors + query * w->span + NUMBERS_A_COUNTER * block, drawn + NUMBERS_A_COUNTER * i,
                   NUMBERS_A_COUNTER * sizeof *drawn);
        }
    }
}

/* Softmax weights [length, span] of one head, zero behind the keys, and what dropout multiplies them by. */
INLINE void weigh(const attention *a, workspace *w, int64_t head, uint32_t row, int64_t length) {
    int64_t span = w->span, dim = a->dim;
    if (a->drops)
        draw_factors(a, w, head, row, length);
    else
        for (int64_t i = 0; i < length * span; i++) w->factors[i] = 1.0f;
    for (int64_t i = 0; i < length; i++) {
        float *weights = w->weights + i * span;
        for (int64_t start = 0; start < span; start += LANES) {
            vector sums = {0};
            for (int64_t c = 0; c < dim; c++)
                sums += w->q[i * dim + c] * *(const vector *)(w->turned + c * span + start);
            *(vector *)(weights + start) = sums * a->scale;
        }
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

CLONES void scalefast_attend_set(
    const attention *a, workspace *w, const void *qkv, uint32_t row, int64_t length, void *out) {
    int64_t dim = a->dim, span = w->span;
    for (int64_t head = 0; head < a->heads; head++) {
        load(a, w, qkv, head, length);
        weigh(a, w, head, row, length);
        for (int64_t i = 0; i < a->tokens; i++) {
            float *to = w->grad;
            memset(to, 0, dim * sizeof *to);
            for (int64_t n = 0; i < length && n < length; n++) {
                float weight = w->weights[i * span + n] * w->factors[i * span + n];
                const float *v = w->v + n * dim;
#pragma omp simd
                for (int64_t c = 0; c < dim; c++) to[c] += weight * v[c];
            }
            write_row(out, to, (i * a->heads + head) * dim, dim, a->format);
        }
    }
}

/* With P the weights, M what dropout multiplies by and G the output's gradient: dV = (PM)^T G, dP = (G V^T) M,
   dS = P (dP - rowsum(P dP)), dQ = scale dS K, dK = scale dS^T Q. */
CLONES void scalefast_attend_set_backward(
    const attention *a, workspace *w, const void *qkv, const void *grad_out, uint32_t row, int64_t length,
    void *grad_qkv) {
    int64_t dim = a->dim, span = w->span, line = 3 * a->heads * dim;
    for (int64_t head = 0; head < a->heads; head++) {
        load(a, w, qkv, head, length);
        weigh(a, w, head, row, length);
        for (int64_t n = 0; n < length; n++)
            read_row(w->grad + n * dim, grad_out, (n * a->heads + head) * dim, dim, a->format);
        memset(w->gq, 0, 3 * span * dim * sizeof *w->gq);
        for (int64_t i = 0; i < length; i++) {
            const float *grad = w->grad + i * dim, *q = w->q + i * dim;
            const float *weights = w->weights + i * span, *factors = w->factors + i * span;
            float *slopes = w->slopes, *gq = w->gq + i * dim, mean = 0.0f;
            for (int64_t n = 0; n < length; n++) {
                const float *v = w->v + n * dim;
                float *gv = w->gv + n * dim, product = 0.0f, weight = weights[n] * factors[n];
#pragma omp simd reduction(+ : product)
                for (int64_t c = 0; c < dim; c++) {
                    product += grad[c] * v[c];
                    gv[c] += weight * grad[c];
                }
                slopes[n] = product * factors[n];
                mean += weights[n] * slopes[n];
            }
            for (int64_t n = 0; n < length; n++) {
                const float *k = w->k + n * dim;
                float *gk = w->gk + n * dim, slope = weights[n] * (slopes[n] - mean) * a->scale;
#pragma omp simd
                for (int64_t c = 0; c < dim; c++) {
                    gq[c] += slope * k[c];
                    gk[c] += slope * q[c];
                }
            }
        }
        for (int64_t n = 0; n < a->tokens; n++) { /* zeros behind the set, where the buffers were left at 0 */
            write_row(grad_qkv, w->gq + n * dim, n * line + head * dim, dim, a->format);
            write_row(grad_qkv, w->gk + n * dim, n * line + (a->heads + head) * dim, dim, a->format);
            write_row(grad_qkv, w->gv + n * dim, n * line + (2 * a->heads + head) * dim, dim, a->format);
        }
    }
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
        float *memory = calloc(8 * span * dim + 2 * span * span + span, sizeof *memory);
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
