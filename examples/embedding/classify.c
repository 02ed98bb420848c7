/* Pictures through the sparse engine, in C alone: no Python, no library but libm and POSIX threads.
 *
 *     cc -std=c99 -O3 -march=native -I NATIVE classify.c NATIVE/model.c -o classify -lm -pthread
 *     ./classify NATIVE/weights.bin labels.txt picture.pgm ...
 *
 * NATIVE is the folder that the sparse engine wrote; pictures are binary PGM or PPM of the network's size, 8 bits.
 * `python3 NATIVE/run.py prepare photo.jpg picture.ppm` makes one of any photo, prepared as in the training.
 * Prints path, label and probability. Exit codes: 1 if a picture could not be read, 4 for the weights or the labels. */
#define _POSIX_C_SOURCE 200809L
#include "model.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS = RE_INPUT_HEIGHT * RE_INPUT_WIDTH, LABEL = 128, BAD_BUNDLE = 4 };

static char labels[RE_OUTPUTS][LABEL];
static unsigned char bytes[PIXELS * RE_INPUT_CHANNELS];
static float image[RE_INPUT_CHANNELS * PIXELS], logits[RE_OUTPUTS];

/* The weights in memory aligned as the engine reads them; NULL if there are none. */
static void *read_weights(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    void *data = NULL;
    long end = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0 &&
        posix_memalign(&data, 64, (size_t)end) == 0 && fread(data, 1, (size_t)end, file) != (size_t)end) {
        free(data);
        data = NULL;
    }
    if (file != NULL)
        fclose(file);
    *size = end < 0 ? 0 : (size_t)end;
    return data;
}

static int read_labels(const char *path) {
    FILE *file = fopen(path, "r");
    int count = 0;
    if (file == NULL)
        return 0;
    while (count < RE_OUTPUTS && fgets(labels[count], LABEL, file) != NULL) {
        size_t end = strcspn(labels[count], "\r\n");
        if (labels[count][end] == '\0' && !feof(file))
            break; /* too long, the next line would be its rest */
        labels[count][end] = '\0';
        count++;
    }
    if (count == RE_OUTPUTS && getc(file) != EOF)
        count++;
    fclose(file);
    return count == RE_OUTPUTS;
}

/* The next number of a PNM header, comments skipped; -1 for anything else. */
static int number(FILE *file) {
    int value = -1, c;
    do {
        c = getc(file);
        if (c == '#')
            while (c != '\n' && c != EOF)
                c = getc(file);
    } while (isspace(c));
    ungetc(c, file);
    return fscanf(file, "%5d", &value) == 1 ? value : -1;
}

/* Interleaved 8-bit pixels to (C, H, W) in [0, 1]; says why not. */
static int read_image(const char *path) {
    FILE *file = fopen(path, "rb");
    const char *wrong = NULL;
    const int kind = RE_INPUT_CHANNELS == 1 ? '5' : '6';
    if (file == NULL) {
        wrong = "cannot be opened";
    } else if (getc(file) != 'P' || getc(file) != kind) {
        wrong = RE_INPUT_CHANNELS == 1 ? "is not a binary PGM (P5)" : "is not a binary PPM (P6)";
    } else if (number(file) != RE_INPUT_WIDTH || number(file) != RE_INPUT_HEIGHT) {
        wrong = "has another size than the network takes";
    } else if (number(file) != 255 || getc(file) == EOF) {
        wrong = "has not 8 bits per channel";
    } else if (fread(bytes, 1, sizeof bytes, file) != sizeof bytes) {
        wrong = "is cut short";
    }
    if (file != NULL)
        fclose(file);
    if (wrong != NULL) {
        fprintf(stderr, "%s %s\n", path, wrong);
        return 0;
    }
    for (int channel = 0; channel < RE_INPUT_CHANNELS; channel++)
        for (int i = 0; i < PIXELS; i++)
            image[channel * PIXELS + i] = (float)bytes[i * RE_INPUT_CHANNELS + channel] / 255.0f;
    return 1;
}

static void answer(const char *path) {
    double sum = 0;
    int best = 0;
    for (int k = 1; k < RE_OUTPUTS; k++)
        if (logits[k] > logits[best])
            best = k;
    for (int k = 0; k < RE_OUTPUTS; k++)
        sum += exp((double)logits[k] - (double)logits[best]);
    printf("%s  %s  %.3f\n", path, labels[best], 1 / sum);
}

int main(int argc, char **argv) {
    re_context *context;
    void *weights;
    size_t size;
    int unread = 0;
    if (argc < 4) {
        fprintf(stderr, "usage: classify weights.bin labels.txt picture.pgm ...\n");
        return 2;
    }
    weights = read_weights(argv[1], &size);
    context = weights == NULL ? NULL : re_create(weights, size, 1);
    if (context == NULL) {
        fprintf(stderr, "%s: %s\n", argv[1], weights == NULL ? "cannot be read" : re_status_text(re_check(weights, size)));
        free(weights);
        return BAD_BUNDLE;
    }
    if (!read_labels(argv[2])) {
        fprintf(stderr, "%s: has not a label for each of the %d classes\n", argv[2], RE_OUTPUTS);
        re_destroy(context);
        free(weights);
        return BAD_BUNDLE;
    }
    for (int i = 3; i < argc; i++) {
        if (!read_image(argv[i])) {
            unread = 1;
            continue;
        }
        re_infer(context, image, logits, 1);
        answer(argv[i]);
    }
    re_destroy(context);
    free(weights);
    return unread;
}
