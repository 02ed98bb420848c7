/* Sizes of the register tiles that one network has. A kernel is compiled once for each size, so the exporter writes
   here, for each value of UNITS_MAX, a macro KERNEL_UNITS(EACH) that applies EACH to every size that occurs. Kernels
   define a macro of their own where there is none. */
#ifndef ROBUST_EDGE_TILE_SIZES_H
#define ROBUST_EDGE_TILE_SIZES_H

#include "vector.h"

#endif
