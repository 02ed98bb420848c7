/* What an operator knows about itself; the tables at the end of the file are of these types. */
enum activation_kind { LINEAR, CLAMP, LEAKY_RELU, SIGMOID, HARD_SWISH };

struct activation {
    enum activation_kind kind;
    float lo, hi; /* CLAMP: the interval; LEAKY_RELU: lo is the slope */
};

/* (channels, height, width) of one image in the arena; planes start `pitch` floats apart, images `image`. */
struct tensor {
    size_t at; /* float offset in the arena */
    int channels, height, width, pitch;
    size_t image;
};

#define DENSE_CHANNELS 6 /* output channels of a dense register tile; the values are laid out by it */
#define TAPS_MAX 49 /* of a depthwise kernel: 7 x 7; and what reaches into a plane of one unit: (2h - 1)(2w - 1) */
#define NO_TENSOR ((size_t)-1)

/* A packed copy of an input plane holds, for output pixel (y, x), input pixel (y * stride + dy, x * stride + dx). */
struct shift {
    int dy, dx;
};

struct conv {
    struct tensor in, out;
    size_t residual; /* arena offset of a tensor laid out like out, perhaps out itself, or NO_TENSOR */
    int groups, stride_y, stride_x;
    int block;              /* input channels of a group that are read at a time */
    int rows, extra_rows;   /* output rows of a tile; rows a copy holds beyond them */
    int images;             /* images of a tile */
    int taps;               /* kernel height * width */
    int copies;             /* packed copies of a plane; 0: it is read in place */
    int copy_floats;        /* from one copy to the next */
    int whole;              /* a copy is a whole shifted plane: masks cover rows too */
    int lead;               /* in place: floats before a tile that offsets count from */
    int apart;              /* pixels between the two rows that share a packed unit; 0: units are runs of pixels */
    const struct shift *shifts;
    size_t masks;           /* arena offset of copies * copy_floats lane masks, or NO_TENSOR: nothing wraps, or strided packing */
    size_t values, bias;    /* byte offsets in the weights file */
    size_t starts, offsets; /* indices of the first of its list starts and of its offsets in the context */
    struct activation act;
};

struct linear {
    size_t in, out; /* contiguous vectors in the arena */
    size_t in_image, out_image;
    int inputs, outputs;
    size_t values, bias, starts, offsets;
    struct activation act;
};

struct pool {
    struct tensor in, out;
    int kernel_y, kernel_x, stride_y, stride_x, top, left, dilation_y, dilation_x;
    int count_padding; /* average: padding counts as pixels (ONNX count_include_pad) */
    int bottom, right; /* padding that counts */
    struct activation act;
};

struct map { /* element-wise: one input, or two; scale and shift by channel */
    struct tensor in, out;
    struct tensor second;
    int broadcast; /* second holds one value per channel */
    const float *scale, *shift;
    struct activation act;
};

/* What a thread is told about a pass: at most IMAGES_MAX images. */
struct job {
    re_context *context;
    const float *in;
    float *out;
    int images, thread, threads;
};

/* Floats of a plane, rounded up to units, which is what operators write; a vector's features are planes of one float. */
static inline int plane_floats(const struct tensor *t) {
    return t->pitch == 1 ? 1 : (t->height * t->width + UNIT - 1) / UNIT * UNIT;
}

struct range {
    int begin, end;
};

/* The share of `count` items of part `part` of `parts`. */
static inline struct range share(int count, int part, int parts) {
    struct range r;
    r.begin = (int)((long)count * part / parts);
    r.end = (int)((long)count * (part + 1) / parts);
    return r;
}
