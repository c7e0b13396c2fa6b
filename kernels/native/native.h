/* What the native ops share: one build for several instruction sets, number formats, and an exponential that vectorises. */
#ifndef SCALEFAST_NATIVE_H
#define SCALEFAST_NATIVE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* Helpers become part of the function that calls them: on their own they would be compiled for any processor. */
#define INLINE static inline __attribute__((always_inline))

/* A function so marked is compiled for AVX-512, for AVX2 with FMA and for any processor; the loader chooses. CMake says
   whether the compiler can. OpenMP moves the body of a parallel loop into a function of its own, which is not cloned, so
   such loops stand in plain functions that call marked ones. */
#ifdef SCALEFAST_CLONES
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

typedef enum { FP32 = 0, BF16 = 1 } number_format;

INLINE float from_bf16(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* Rounds to nearest, ties to even, as PyTorch does; NaN stays NaN. */
INLINE uint16_t to_bf16(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    uint32_t rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    return (uint16_t)((word & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

INLINE void read_row(float *to, const void *from, int64_t offset, int64_t count, number_format format) {
    if (format == FP32) {
        memcpy(to, (const float *)from + offset, count * sizeof *to);
        return;
    }
    const uint16_t *row = (const uint16_t *)from + offset;
    for (int64_t i = 0; i < count; i++) to[i] = from_bf16(row[i]);
}

INLINE void write_row(void *to, const float *from, int64_t offset, int64_t count, number_format format) {
    if (format == FP32) {
        memcpy((float *)to + offset, from, count * sizeof *from);
        return;
    }
    uint16_t *row = (uint16_t *)to + offset;
    for (int64_t i = 0; i < count; i++) row[i] = to_bf16(from[i]);
}

/* e^x for x <= 0 (0 below -87.3): 2^n times a polynomial on [-ln(2)/2, ln(2)/2]; within 2e-7 of it.
   Products and sums are left to the compiler to fuse. */
INLINE float exp_nonpositive(float x) {
    const float whole = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float limited = x < -87.3f ? -87.3f : x;
    float n = (limited * 1.44269504f + whole) - whole;
    float r = limited - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t exponent = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &exponent, sizeof scale);
    return x < -87.3f ? 0.0f : p * scale;
}

#endif
