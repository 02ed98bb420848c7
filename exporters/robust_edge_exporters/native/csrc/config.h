/* Sizes of one network. The values here are those of an example without layers, with which every header compiles alone;
   the exporter writes the network's own values in their place (emit.py), so they are computed in Python only. */
#ifndef ROBUST_EDGE_CONFIG_H
#define ROBUST_EDGE_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#define IMAGES_MAX 4 /* images of a pass */
#define MODEL UINT64_C(0) /* 64 bits that model.c and weights.bin of one export share */
#define VALUE_BYTES 4u /* of a stored weight: 4, or 2 for fp16 */
#define WEIGHTS_BYTES ((size_t)128) /* of the weights file */
#define ARENA_FLOATS ((size_t)4096) /* of all tensors and lane masks of a context */
#define SCRATCH_FLOATS ((size_t)32) /* of each thread's scratch memory */
#define STARTS_COUNT ((size_t)1) /* starts of segments, of all layers */
#define OFFSETS_COUNT ((size_t)1) /* offsets of entries, of all layers */
#define CHANNELS_COUNT ((size_t)0) /* output channels of all layers of codes */
#define SEGMENT_TABLES ((size_t)1) /* layers with segments, and one that is empty */
#define OPERATORS 2 /* with the input and the output */

#endif
