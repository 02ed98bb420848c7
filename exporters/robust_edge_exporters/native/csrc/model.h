/* C API of a generated network. It needs a C99 compiler, libm and POSIX threads; nothing else. */
#ifndef ROBUST_EDGE_MODEL_H
#define ROBUST_EDGE_MODEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct re_context re_context;

enum re_status {
    RE_OK = 0,
    RE_TOO_SHORT,      /* the file has fewer bytes than it must have */
    RE_BAD_MAGIC,      /* it is no weights file of this engine, or one of the other byte order */
    RE_BAD_VERSION,    /* it was written for another version of the format */
    RE_OTHER_MODEL,    /* it belongs to another network than this code */
    RE_BAD_SIZE,       /* its size differs from what this code expects */
    RE_BAD_CHECKSUM,   /* it is damaged */
    RE_BAD_CONTENT,    /* it holds an offset or a count outside its layer */
    RE_UNALIGNED       /* it does not lie at a multiple of 4 bytes in memory */
};

/* Elements of one image and of its logits: (RE_INPUT_CHANNELS, RE_INPUT_HEIGHT, RE_INPUT_WIDTH) -> RE_OUTPUTS.
   The exporter writes the network's sizes here. */
#define RE_INPUT_CHANNELS 1
#define RE_INPUT_HEIGHT 1
#define RE_INPUT_WIDTH 1
#define RE_OUTPUTS 1

/* Writes channels, height, width and outputs, for callers that load the library at run time. */
void re_shape(int shape[4]);

/* Checks a weights file in memory: size, magic, version, model, checksum, every offset and count. */
enum re_status re_check(const void *weights, size_t bytes);

/* Returns a context with `threads` threads (1 to 64, else the nearest; 1 is the caller's thread only), or NULL if
   re_check fails or memory is short. `weights` is read in place: it must stay unchanged until re_destroy, at a multiple
   of 4 bytes (a multiple of 64 is fastest). */
re_context *re_create(const void *weights, size_t bytes, int threads);

/* Runs n images. in: (n, C, H, W) float32; out: (n, RE_OUTPUTS) float32. Allocates nothing.
   A context takes one call at a time; different contexts are independent. A child of fork() needs a context of its own,
   since it does not have the threads of its parent's. */
void re_infer(re_context *context, const float *in, float *out, int n);

/* Returns the bytes that a context holds beyond the weights file. */
size_t re_memory(const re_context *context);

void re_destroy(re_context *context);

const char *re_status_text(enum re_status status);

#ifdef __cplusplus
}
#endif
#endif
