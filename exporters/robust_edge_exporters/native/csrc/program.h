/* What bench and predict share: arguments and files. */

/* Argument `index`, a whole number of at least 1, or `otherwise` where it is not given; anything else ends the program. */
static inline int number(int argc, char **argv, int index, int otherwise) {
    char *end;
    long value;
    if (argc <= index)
        return otherwise;
    value = strtol(argv[index], &end, 10);
    if (end == argv[index] || *end != '\0' || value < 1 || value > 1000000) {
        fprintf(stderr, "%s: argument %d is '%s'; give a whole number from 1 to 1000000\n", argv[0], index, argv[index]);
        exit(2);
    }
    return (int)value;
}

/* Whether all that was printed has reached its place, with the reason if it has not. */
static inline int written(void) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 1;
    perror("standard output");
    return 0;
}

static void *read_file(const char *path, size_t *bytes) {
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

static re_context *create_or_explain(const char *path, void **weights, int threads) {
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
