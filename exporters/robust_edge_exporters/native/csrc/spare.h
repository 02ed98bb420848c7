/* Zeroes what lies behind each plane and the row before the first: a convolution that reads in place meets zeros one row
   beyond a plane. */
static void clear_spare_rows(const struct job *j, const struct tensor *t) {
    const int used = plane_floats(t);
    struct range channels = share(t->channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++) {
        float *image = j->context->arena + t->at + (size_t)g * t->image;
        if (channels.begin == 0)
            memset(image - t->width, 0, (size_t)t->width * sizeof *image);
        for (int c = channels.begin; c < channels.end; c++)
            for (int i = used; i < t->pitch; i += LANES)
                store(image + c * t->pitch + i, splat(0));
    }
}
