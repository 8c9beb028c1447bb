/* cpu_avx512.c: the float32 kernels for x86-64 with AVX-512 F, BW, VL and DQ. */
#include "cpu/cpu_tables.h"

const cpu_kernels *cpu_table_avx512(void) { return NULL; }
