/* metal.h: the pieces of the Metal backend; private to src/gpu/metal. */
#ifndef GPU_METAL_METAL_H
#define GPU_METAL_METAL_H

/* The kernels' source for the Metal compiler: entry.metal with all that it includes, put into the
 * program by the Makefile (flatten.sh). */
const char *metal_source(void);

#endif
