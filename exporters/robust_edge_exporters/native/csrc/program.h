/* What bench and predict share: files. */
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
