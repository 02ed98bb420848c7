/* C API of a generated network. Needs a C99 compiler, libm and POSIX threads; nothing else. */
#ifndef ROBUST_EDGE_MODEL_H
#define ROBUST_EDGE_MODEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct re_context re_context;

enum re_status {
    RE_OK = 0,
    RE_TOO_SHORT,      /* fewer bytes than the file must have */
    RE_BAD_MAGIC,      /* not a weights file of this engine, or of the other byte order */
    RE_BAD_VERSION,    /* written for another version of the format */
    RE_OTHER_MODEL,    /* weights of another network than this code */
    RE_BAD_SIZE,       /* size differs from what this code expects */
    RE_BAD_CHECKSUM,   /* damaged */
    RE_BAD_CONTENT,    /* an offset or a count outside its layer */
    RE_UNALIGNED       /* not at a multiple of 4 bytes in memory */
};

/* Elements of one image and of its logits: (RE_INPUT_CHANNELS, RE_INPUT_HEIGHT, RE_INPUT_WIDTH) -> RE_OUTPUTS. */
#define RE_INPUT_CHANNELS @CHANNELS@
#define RE_INPUT_HEIGHT @HEIGHT@
#define RE_INPUT_WIDTH @WIDTH@
#define RE_OUTPUTS @OUTPUTS@

/* Sizes for callers that load the library at run time: channels, height, width, outputs. */
void re_shape(int shape[4]);

/* Checks a weights file in memory: size, magic, version, model, checksum, every offset and count. */
enum re_status re_check(const void *weights, size_t bytes);

/* A context with `threads` threads (1 to 64, else the nearest; 1: only the caller's), or NULL when re_check fails or memory is short.
   `weights` is read in place: it must stay there unchanged until re_destroy, at a multiple of 4 bytes (of 64 is fastest). */
re_context *re_create(const void *weights, size_t bytes, int threads);

/* Runs n images. in: (n, C, H, W) float32; out: (n, RE_OUTPUTS) float32. Allocates nothing.
   One call at a time for a context; different contexts are independent. A child of fork() needs a context of its own:
   it has not the threads of its parent's. */
void re_infer(re_context *context, const float *in, float *out, int n);

/* Bytes that a context holds beyond the weights file. */
size_t re_memory(const re_context *context);

void re_destroy(re_context *context);

const char *re_status_text(enum re_status status);

#ifdef __cplusplus
}
#endif
#endif
