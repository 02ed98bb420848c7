/* fuzz weights.bin rounds: damages a copy of the file in many ways, with and without a matching checksum, and runs
   whatever is accepted. Prints how many were accepted; the sanitizers judge the rest. */
#define _POSIX_C_SOURCE 200809L
#include "model.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fix_checksum(unsigned char *file, size_t bytes) {
    uint64_t sum = 0, weighted = 0;
    for (size_t i = 0; 64 + 4 * i + 4 <= bytes; i++) {
        uint32_t word;
        memcpy(&word, file + 64 + 4 * i, sizeof word);
        sum += word;
        weighted += (uint64_t)(i + 1) * word;
    }
    memcpy(file + 32, &sum, sizeof sum);
    memcpy(file + 40, &weighted, sizeof weighted);
}

static int accepted(const unsigned char *file, size_t bytes) {
    static float in[2 * RE_INPUT_CHANNELS * RE_INPUT_HEIGHT * RE_INPUT_WIDTH], out[2 * RE_OUTPUTS];
    re_context *context = re_create(file, bytes, 1);
    if (context == NULL)
        return 0;
    re_infer(context, in, out, 2);
    re_destroy(context);
    return 1;
}

int main(int argc, char **argv) {
    FILE *stream = argc > 2 ? fopen(argv[1], "rb") : NULL;
    int rounds = argc > 2 ? atoi(argv[2]) : 0, taken = 0;
    size_t bytes;
    unsigned char *original = malloc(1 << 24);
    if (stream == NULL || original == NULL)
        return 2;
    bytes = fread(original, 1, 1 << 24, stream);
    fclose(stream);
    if (!accepted(original, bytes))
        return 3;
    for (int round = 0; round < rounds; round++) {
        void *memory; /* exactly as long as the damaged file, so that reading on is seen */
        size_t kept = round % 4 == 0 ? (size_t)rand() % (bytes + 1) : bytes, changes = (size_t)(1 + rand() % 20);
        if (posix_memalign(&memory, 64, kept ? kept : 1))
            return 2;
        memcpy(memory, original, kept);
        for (size_t i = 0; i < changes && kept; i++) {
            size_t range = round % 4 == 1 && kept > 64 ? 64 : kept; /* one in four damages the header */
            ((unsigned char *)memory)[(size_t)rand() % range] = (unsigned char)rand();
        }
        if (round % 4 > 1 && kept >= 64)
            fix_checksum(memory, kept);
        taken += accepted(memory, kept);
        free(memory);
    }
    free(original);
    printf("%d\n", taken);
    return 0;
}
