/* What the engine asks of a compiler beyond C99, and what takes its place where there is no GCC or Clang. */
#ifndef ROBUST_EDGE_COMPILER_H
#define ROBUST_EDGE_COMPILER_H

/* PRIVATE: a function of a header; no compiler warns where a network does not use it. INLINE: one that is always
   inlined, so that arguments which are constants at its call (sizes of a tile) are constants inside, and its loops are
   unrolled. KEEP_IN_LOOP: vectors of this number are made where they are used, and take no register from the loop before,
   as they would if the number were known not to change. */
#if defined(__GNUC__)
#define PRIVATE static __attribute__((unused))
#else
#define PRIVATE static
#endif

#if defined(__GNUC__) && !defined(RE_SCALAR)
#define INLINE static inline __attribute__((always_inline, unused))
#define PREFETCH(p) __builtin_prefetch(p)
#define KEEP_IN_LOOP(x) __asm__("" : "+r"(x))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)") /* with "unroll", clang leaves the sums in memory */
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#else
#if defined(__GNUC__)
#define INLINE static inline __attribute__((unused))
#else
#define INLINE static inline
#endif
#define PREFETCH(p) (void)(p)
#define KEEP_IN_LOOP(x) (void)(x)
#define UNROLL
#endif

#endif
