/* predict [weights.bin [threads]] < images > logits: raw float32 images (C, H, W) in, one line of logits for each. */
#define _POSIX_C_SOURCE 200809L
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

#include "program.h"

static float image[RE_INPUT_CHANNELS * RE_INPUT_HEIGHT * RE_INPUT_WIDTH], logits[RE_OUTPUTS];

int main(int argc, char **argv) {
    void *weights;
    const char *path = argc > 1 ? argv[1] : "weights.bin";
    re_context *context = create_or_explain(path, &weights, parse_count(argc, argv, 2, 1));
    size_t got;
    if (context == NULL)
        return 1;
    while ((got = fread(image, 1, sizeof image, stdin)) == sizeof image) {
        re_infer(context, image, logits, 1);
        for (int k = 0; k < RE_OUTPUTS; k++)
            printf("%.9g%c", (double)logits[k], k + 1 < RE_OUTPUTS ? ' ' : '\n');
    }
    if (got != 0)
        fprintf(stderr, "the last image is cut short: %zu bytes\n", got);
    re_destroy(context);
    free(weights);
    return !flush_output() || got != 0;
}
