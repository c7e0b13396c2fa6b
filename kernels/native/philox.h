/* Philox-4x32-10, 16 counters at a time, and the dropout made of it; ../philox/reference.py is the specification. */
#ifndef SCALEFAST_PHILOX_H
#define SCALEFAST_PHILOX_H

#include "native.h"

enum { COUNTERS = 16, NUMBERS_A_COUNTER = 8, NUMBERS = COUNTERS * NUMBERS_A_COUNTER };

/* Where numbers come from, and what dropout makes of them: `kept` where 16 bits reach `limit`, else 0. */
typedef struct {
    uint32_t seed_low, seed_high, step, site;
    int32_t limit;
    float kept;
} drawing;

INLINE drawing describe_drawing(int64_t seed, int64_t step, uint32_t site, int32_t limit, float kept) {
    drawing d = {(uint32_t)seed, (uint32_t)((uint64_t)seed >> 32), (uint32_t)step, site, limit, kept};
    return d;
}

/* Factors of the 8 numbers of each of 16 blocks, one block after the other. */
INLINE void draw(const drawing *d, const uint32_t *index, uint32_t row, float *factors) {
    uint32_t w0[COUNTERS], w1[COUNTERS], w2[COUNTERS], w3[COUNTERS];
    uint32_t key0 = d->seed_low, key1 = d->seed_high;
    for (int i = 0; i < COUNTERS; i++) {
        w0[i] = index[i];
        w1[i] = d->site;
        w2[i] = row;
        w3[i] = d->step;
    }
    for (int round = 0; round < 10; round++) {
#pragma omp simd
        for (int i = 0; i < COUNTERS; i++) {
            uint64_t p = (uint64_t)w0[i] * 0xD2511F53u, q = (uint64_t)w2[i] * 0xCD9E8D57u;
            w0[i] = (uint32_t)(q >> 32) ^ w1[i] ^ key0;
            w2[i] = (uint32_t)(p >> 32) ^ w3[i] ^ key1;
            w1[i] = (uint32_t)q;
            w3[i] = (uint32_t)p;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    int16_t halves[NUMBERS];
    for (int i = 0; i < COUNTERS; i++) {
        const uint32_t words[4] = {w0[i], w1[i], w2[i], w3[i]};
        for (int n = 0; n < NUMBERS_A_COUNTER; n++)
            halves[NUMBERS_A_COUNTER * i + n] = (int16_t)(words[n / 2] >> (16 * (n % 2)));
    }
    /* By bits: GCC makes a scalar loop of a choice between two floats by 16-bit numbers, half of dropout's time. */
    uint32_t kept, bits[NUMBERS];
    memcpy(&kept, &d->kept, sizeof kept);
    for (int n = 0; n < NUMBERS; n++) bits[n] = kept & -(uint32_t)(halves[n] >= d->limit);
    memcpy(factors, bits, sizeof bits);
}

#endif
