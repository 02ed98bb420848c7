/* What the programs bench and predict share: arguments and files. */
#ifndef ROBUST_EDGE_PROGRAM_H
#define ROBUST_EDGE_PROGRAM_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#endif

#include <stdio.h>
#include <stdlib.h>

#include "model.h"

#if defined(__GNUC__)
#define SHARED static __attribute__((unused))
#else
#define SHARED static
#endif

/* Returns argument `index` as a number of 1 to 1000000, or `missing` if it is not given; ends the program if it is
   anything else. */
SHARED int parse_count(int argc, char **argv, int index, int missing) {
    char *end;
    long value;
    if (argc <= index)
        return missing;
    value = strtol(argv[index], &end, 10);
    if (end == argv[index] || *end != '\0' || value < 1 || value > 1000000) {
        fprintf(stderr, "%s: argument %d is '%s'; give a whole number from 1 to 1000000\n", argv[0], index, argv[index]);
        exit(2);
    }
    return (int)value;
}

/* Returns whether everything that was printed has been written, and prints the reason if it has not. */
SHARED int flush_output(void) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 1;
    perror("standard output");
    return 0;
}

/* Returns the file's bytes at a multiple of 64 bytes, to be freed by the caller, or NULL if it cannot be read. */
SHARED void *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    void *data = NULL;
    long size = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0 &&
        posix_memalign(&data, 64, size > 0 ? (size_t)size : 1) == 0 && fread(data, 1, (size_t)size, file) != (size_t)size) {
        free(data);
        data = NULL;
    }
    if (file != NULL)
        fclose(file);
    if (data == NULL)
        fprintf(stderr, "%s: cannot be read\n", path);
    *bytes = size < 0 ? 0 : (size_t)size;
    return data;
}

/* Returns a context of the weights file, or NULL after an error message. */
SHARED re_context *create_or_explain(const char *path, void **weights, int threads) {
    size_t bytes;
    re_context *context;
    *weights = read_file(path, &bytes);
    if (*weights == NULL)
        return NULL;
    context = re_create(*weights, bytes, threads);
    if (context == NULL) {
        enum re_status status = re_check(*weights, bytes);
        fprintf(stderr, "%s: %s\n", path, status == RE_OK ? "out of memory" : re_status_text(status));
    }
    return context;
}

#endif
