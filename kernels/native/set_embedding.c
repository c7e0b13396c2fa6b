/* Tokens of sets in one pass: mask token or clip, plus its position, behind a CLS token; and the gradients.

   Shapes: B sets, V clips a set, H width. */
#include "native.h"

CLONES void scalefast_embed_set(
    const void *x, const void *positions, const uint8_t *mask, const float *mask_token, const float *cls, int64_t clips,
    int64_t width, number_format format, void *out) {
    write_row(out, cls, 0, width, format);
    for (int64_t v = 0; v < clips; v++) {
        int masked = mask && mask[v];
        if (format == FP32) {
            const float *from = masked ? mask_token : (const float *)x + v * width;
            const float *place = (const float *)positions + v * width;
            float *to = (float *)out + (v + 1) * width;
            for (int64_t i = 0; i < width; i++) to[i] = from[i] + place[i];
        } else {
            const uint16_t *from = (const uint16_t *)x + v * width, *place = (const uint16_t *)positions + v * width;
            uint16_t *to = (uint16_t *)out + (v + 1) * width;
            for (int64_t i = 0; i < width; i++)
                to[i] = to_bf16((masked ? mask_token[i] : from_bf16(from[i])) + from_bf16(place[i]));
        }
    }
}

EXPORT void scalefast_embed_sets(
    const char *x, const char *positions, const uint8_t *mask, const float *mask_token, const float *cls, int64_t sets,
    int64_t clips, int64_t width, int format, char *out, int threads) {
    int64_t bytes = width * (format == FP32 ? 4 : 2);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < sets; b++)
        scalefast_embed_set(
            x + b * clips * bytes, positions + b * clips * bytes, mask ? mask + b * clips : 0, mask_token, cls, clips,
            width, (number_format)format, out + b * (clips + 1) * bytes);
}
