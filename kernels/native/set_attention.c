/* Attention inside small sets, weights dropped by Philox numbers, forward and backward; see ../set_attention.

   Shapes: B sets, N tokens a set, h heads, d head dimension; q, k and v lie as [B, N, 3, h, d]. One head of one set is
   worked on at a time, in fp32, from buffers that stay in the first cache. Weights lie with keys as rows and queries side by
   side, so that a softmax runs down the lanes and no lane meets another. Loops over d = 32, SCALE's own, have a copy in which
   the compiler knows it: a quarter less time (2-core EPYC, Zen 5, 2026-11-21). */
#include <stdlib.h>

#include "philox.h"

/* Three rows of two vectors are as many sums as the pipelines need, and fit AVX2's registers too. */
enum { LANES = 16, ROWS = 3, USUAL_DIM = 32, LINE = 64 };

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t mask __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(sizeof(int32_t)), may_alias));

typedef struct {
    int64_t tokens, heads, dim;
    number_format format;
    float scale;
    int drops;
    drawing dropout;
} attention;

/* Buffers of one thread, rows of tokens; `span` is N and `wide` is d, rounded up to whole vectors. What lies behind
   d is 0, and what lies behind N may be computed but is never used: buffers have ROWS more than they need. */
typedef struct {
    int64_t span, wide;
    float *q, *k, *v, *turned_q, *turned_grad, *weights, *factors, *slopes, *grad, *gq, *gk, *gv;
} workspace;

INLINE int64_t whole(int64_t numbers) { return (numbers + LANES - 1) / LANES * LANES; }

static int64_t buffers(int64_t span, int64_t wide) { return (span + ROWS) * (9 * wide + 3 * span); }

static void divide(workspace *w, float *memory, int64_t span, int64_t wide) {
    float **rows[] = {&w->q, &w->k, &w->v, &w->turned_q, &w->turned_grad, &w->grad, &w->gq, &w->gk, &w->gv};
    float **squares[] = {&w->weights, &w->factors, &w->slopes};
    w->span = span;
    w->wide = wide;
    for (int i = 0; i < 9; i++, memory += (span + ROWS) * wide) *rows[i] = memory;
    for (int i = 0; i < 3; i++, memory += (span + ROWS) * span) *squares[i] = memory;
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

/* [rows, columns], `wide` numbers a row, as [columns, span]; what lies behind is left as it is. */
INLINE void turn(float *turned, const float *from, int64_t wide, int64_t span, int64_t rows, int64_t columns) {
    for (int64_t n = 0; n < rows; n++)
        for (int64_t c = 0; c < columns; c++) turned[c * span + n] = from[n * wide + c];
}

/* A factor of a product: number (i, j) stands at i * row + j * step. */
typedef struct {
    const float *numbers;
    int64_t row, step;
} factor;

/* Sums [ROWS, one or two vectors] over j < count of left (i + r, j) times right [count, width]. */
INLINE void sum_products(
    float *out, factor left, int64_t i, const float *right, int64_t width, int64_t count, int vectors) {
    vector sums[ROWS][2] = {{{0}}};
    for (int64_t j = 0; j < count; j++)
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < vectors; v++)
                sums[r][v] += left.numbers[(i + r) * left.row + j * left.step] *
                              *(const vector *)(right + j * width + v * LANES);
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < vectors; v++) *(vector *)(out + (i + r) * width + v * LANES) = sums[r][v];
}

/* [rows, width] = left [rows, count] times right [count, width], whole vectors wide; up to ROWS - 1 rows more. */
INLINE void multiply(float *out, factor left, const float *right, int64_t width, int64_t rows, int64_t count) {
    for (int64_t i = 0; i < rows; i += ROWS) {
        int64_t start = 0;
        for (; start + 2 * LANES <= width; start += 2 * LANES)
            sum_products(out + start, left, i, right + start, width, count, 2);
        if (start < width) sum_products(out + start, left, i, right + start, width, count, 1);
    }
}

/* What dropout multiplies the weights by; it is drawn [query, key], the blocks of 8 keys one after the other. */
INLINE void draw_factors(const attention *a, workspace *w, int64_t head, uint32_t row, int64_t length) {
    int64_t blocks = (length + NUMBERS_A_COUNTER - 1) / NUMBERS_A_COUNTER, query = 0, block = 0;
    while (query < length) {
        uint32_t index[COUNTERS];
        float drawn[NUMBERS], behind[NUMBERS_A_COUNTER], *place[COUNTERS];
        for (int i = 0; i < COUNTERS; i++) {
            place[i] = query < length ? w->slopes + query * w->span + NUMBERS_A_COUNTER * block : behind;
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
    turn(w->factors, w->slopes, w->span, w->span, length, length);
}

/* Products of keys and queries [length, span] become the softmax weights of each query, a column. */
INLINE void soften(float *weights, int64_t span, int64_t length, float scale) {
    for (int64_t start = 0; start < span; start += LANES) {
        vector *rows = (vector *)(weights + start), most = rows[0], sums = {0};
        int64_t apart = span / LANES;
        for (int64_t n = 1; n < length; n++) {
            vector row = rows[n * apart];
            mask larger = row > most;
            most = (vector)((larger & (mask)row) | (~larger & (mask)most));
        }
        for (int64_t n = 0; n < length; n++) {
            float *row = weights + n * span + start;
#pragma omp simd
            for (int64_t i = 0; i < LANES; i++) row[i] = exp_nonpositive((row[i] - most[i]) * scale);
            sums += rows[n * apart];
        }
        sums = 1.0f / sums;
        for (int64_t n = 0; n < length; n++) rows[n * apart] *= sums;
    }
}

/* Softmax weights [key, query] of one head; with dropout, what it multiplies them by. */
INLINE void weigh(const attention *a, workspace *w, int64_t head, uint32_t row, int64_t length, int64_t dim) {
    turn(w->turned_q, w->q, whole(dim), w->span, length, dim);
    if (a->drops) draw_factors(a, w, head, row, length);
    multiply(w->weights, (factor){w->k, whole(dim), 1}, w->turned_q, w->span, length, dim);
    soften(w->weights, w->span, length, a->scale);
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
        if (a->drops)
            for (int64_t i = 0; i < length * span; i++) w->weights[i] *= w->factors[i];
        multiply(to, (factor){w->weights, 1, span}, w->v, wide, length, length);
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
   dS = P (dP - rowsum(P dP)), dQ = scale dS K, dK = scale dS^T Q; here P, M, dP and dS lie turned. */
INLINE void find_gradients(const attention *a, workspace *w, int64_t length, int64_t dim) {
    int64_t span = w->span, wide = whole(dim);
    turn(w->turned_grad, w->grad, wide, span, length, dim);
    multiply(w->slopes, (factor){w->v, wide, 1}, w->turned_grad, span, length, dim);
    for (int64_t start = 0; start < span; start += LANES) {
        vector mean = {0};
        for (int64_t n = 0; n < length; n++) {
            vector *slopes = (vector *)(w->slopes + n * span + start);
            if (a->drops) *slopes *= *(vector *)(w->factors + n * span + start);
            mean += *(vector *)(w->weights + n * span + start) * *slopes;
        }
        for (int64_t n = 0; n < length; n++) {
            vector *slopes = (vector *)(w->slopes + n * span + start), *weights = (vector *)(w->weights + n * span + start);
            *slopes = *weights * (*slopes - mean) * a->scale;
            if (a->drops) *weights *= *(vector *)(w->factors + n * span + start);
        }
    }
    multiply(w->gv, (factor){w->weights, span, 1}, w->grad, wide, length, length);
    multiply(w->gk, (factor){w->slopes, span, 1}, w->q, wide, length, length);
    multiply(w->gq, (factor){w->slopes, 1, span}, w->k, wide, length, length);
    clear_rows(a, w->gv, length, dim);
    clear_rows(a, w->gk, length, dim);
    clear_rows(a, w->gq, length, dim);
}

INLINE void attend_set_backward(
    const attention *a, workspace *w, const void *qkv, const void *grad_out, uint32_t row, int64_t length,
    void *grad_qkv, int64_t dim) {
    int64_t line = 3 * a->heads * dim, wide = whole(dim);
    for (int64_t head = 0; head < a->heads; head++) {
        load(a, w, qkv, head, length, dim);
        weigh(a, w, head, row, length, dim);
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
        int64_t bytes_held = (buffers(span, wide) * sizeof(float) + LINE - 1) / LINE * LINE;
        float *memory = aligned_alloc(LINE, bytes_held);
        failed = memory == 0;
        if (!failed) {
            memset(memory, 0, bytes_held);
            divide(&w, memory, span, wide);
        }
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
