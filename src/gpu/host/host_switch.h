/* host_switch.h: changing stacks by hand, private to host_group.c.
 *
 * host_switch(&from, to) pushes the registers that a call must keep, stores the stack pointer in
 * from and takes up `to`, a pointer stored before. host_stack_new makes a stack whose first switch
 * calls entry(argument). A swap of ucontexts would do the same with two system calls each time:
 * a thousand times slower (a barrier of 256 threads takes 256 switches). */
#ifndef GPU_HOST_HOST_SWITCH_H
#define GPU_HOST_HOST_SWITCH_H

#include <stddef.h>
#include <stdint.h>

void host_switch(void **from, void *to);
void *host_stack_new(void *base, size_t bytes, void (*entry)(void *), void *argument);

#endif
