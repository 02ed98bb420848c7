/* Zeroes the spare rows behind each plane and the one before the first, so that a convolution that reads in place meets
   zeros beyond a plane. Before an image's first plane lies what is behind the last of the image before. */
static void clear_spare_rows(const struct job *j, const struct tensor *t) {
    const int used = plane_floats(t);
    struct range channels = share(t->channels, j->thread, j->threads);
    float *image = j->context->arena + t->at;
    if (j->thread == 0)
        for (int i = 0; i < t->width; i += LANES)
            store(image - t->width + i, splat(0));
    for (int g = 0; g < j->images; g++, image += t->image)
        for (int c = channels.begin; c < channels.end; c++)
            for (int i = used; i < t->pitch; i += LANES)
                store(image + c * t->pitch + i, splat(0));
}
