/* Stride 2 in place: pixel (2y + p, 2x + q) of a plane is pixel (y, x) of its phase (p, q), and a tap reads one phase
   moved by a constant. At stride 1 the plane itself is the only phase. */
static int floor_half(int x) { return (x - (x & 1)) / 2; }

static int tap_shift(const struct conv *c, int tap) {
    struct shift s = c->shifts[tap];
    if (c->stride_x == 1)
        return s.dy * c->out.width + s.dx;
    return floor_half(s.dy) * c->out.width + floor_half(s.dx);
}

/* Whether a tap reads the phase of rows y % 2. */
static int needs_rows(const struct conv *c, int parity) {
    int needed = 0;
    for (int k = 0; k < c->taps; k++)
        needed |= (c->shifts[k].dy & 1) == parity;
    return needed;
}

/* The phases of a plane that taps read, from (0, 0) to (1, 1), each as large as an output plane. */
static void split_phases(const struct conv *c, const float *plane, float *phases) {
    int width = c->out.width, floats = c->copy_floats;
    for (int parity = 0; parity < 2; parity++) {
        const float *row = plane + parity * c->in.width;
        float *even = phases + parity * 2 * floats;
        if (needs_rows(c, parity))
            for (int y = 0; y < c->out.height; y++, row += 2 * c->in.width, even += width)
                split_row(row, width, even, even + floats);
    }
}
