/* Stride 2 in place: pixel (2y + p, 2x + q) of a plane is pixel (y, x) of its phase (p, q), and a tap reads one phase
   moved by a constant. At stride 1 the plane itself is the only phase. */
static int floor_half(int x) { return (x - (x & 1)) / 2; }

static int tap_shift(const struct conv *c, int tap) {
    struct shift s = c->shifts[tap];
    if (c->stride_x == 1)
        return s.dy * c->out.width + s.dx;
    return floor_half(s.dy) * c->out.width + floor_half(s.dx);
}

/* The four phases of a plane, from (0, 0) to (1, 1), each as large as an output plane. */
static void split_phases(const struct conv *c, const float *plane, float *phases) {
    int width = c->out.width, floats = c->copy_floats;
    for (int y = 0; y < c->in.height; y++, plane += c->in.width) {
        float *even = phases + (y % 2) * 2 * floats + y / 2 * width, *odd = even + floats;
        take_every_second(even, plane, width);
        take_every_second(odd, plane + 1, width);
    }
}
