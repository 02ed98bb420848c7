/* Even and odd pixels of a row of 2 * width. */
INLINE void split_columns(const float *row, const int width, float *even, float *odd) {
    if (width < LANES)
        split_row(row, width, even, odd);
    else
        for (int x = 0; x < width; x += LANES) {
            vec e, o;
            take_apart(row + 2 * x, &e, &o);
            store(even + x, e);
            store(odd + x, o);
        }
}

/* A row of the input, or of zeros beyond it. */
INLINE void pack_row_of_columns(const struct conv *c, const float *plane, int y, const int width, const int stride,
                                float *even, float *odd) {
    const size_t bytes = (size_t)width * sizeof *even;
    if (y < 0 || y >= c->in.height) {
        memset(even, 0, bytes);
        if (stride == 2)
            memset(odd, 0, bytes);
    } else if (stride == 2)
        split_columns(plane + y * (2 * width), width, even, odd);
    else
        memcpy(even, plane + y * width, bytes);
}

/* For the kernel that sums by column: unmoved rows, at stride 2 even and odd pixels apart. Rows of half a unit share
   units in pairs: unit r holds rows r and r + half of the height. */
INLINE void pack_columns(const struct conv *c, const float *image, struct range channels, int y0, int rows, float *dst,
                         const int width, const int stride) {
    const int halves = width < UNIT ? 2 : 1, apart = rows / halves * stride, packed = rows / halves + c->extra_rows;
    for (int k = channels.begin; k < channels.end; k++)
        for (int s = 0; s < c->copies; s += stride, dst += stride * c->copy_floats) {
            const float *plane = image + (size_t)k * (size_t)c->in.pitch;
            float *even = dst, *odd = dst + c->copy_floats;
            int y = y0 * stride + c->shifts[s].dy;
            for (int r = 0; r < packed; r++, y += stride)
                UNROLL for (int h = 0; h < halves; h++, even += width, odd += width)
                    pack_row_of_columns(c, plane, y + h * apart, width, stride, even, odd);
        }
}
