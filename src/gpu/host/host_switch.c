/* host_switch.c: see host_switch.h. x86-64 (System V) and AArch64; other processors get the
 * portable swapcontext. */
#include "gpu/host/host_switch.h"

#include <string.h>

/* A function in assembly: macOS puts a _ before names and has other words for what is hidden. */
#ifdef __APPLE__
#define BEGIN(name) ".globl _" name "\n.private_extern _" name "\n.p2align 4\n_" name ":\n"
#define END(name)   ""
#else
#define BEGIN(name) ".globl " name "\n.hidden " name "\n.p2align 4\n" name ":\n"
#define END(name)   ".type " name ",%function\n.size " name ",.-" name "\n"
#endif

#if defined(__x86_64__)

__asm__(".text\n" BEGIN("host_switch") "    pushq %rbp\n"
                                       "    pushq %rbx\n"
                                       "    pushq %r12\n"
                                       "    pushq %r13\n"
                                       "    pushq %r14\n"
                                       "    pushq %r15\n"
                                       "    movq %rsp, (%rdi)\n"
                                       "    movq %rsi, %rsp\n"
                                       "    popq %r15\n"
                                       "    popq %r14\n"
                                       "    popq %r13\n"
                                       "    popq %r12\n"
                                       "    popq %rbx\n"
                                       "    popq %rbp\n"
                                       "    ret\n" END("host_switch")
                                           BEGIN("host_begin") /* entry in rbx, argument in r12 */
        "    movq %r12, %rdi\n"
        "    callq *%rbx\n"
        "    ud2\n" END("host_begin"));

void host_begin(void);

void *host_stack_new(void *base, size_t bytes, void (*entry)(void *), void *argument) {
    uintptr_t top = ((uintptr_t)base + bytes) & ~(uintptr_t)15;
    void **sp = (void **)top;
    *--sp = NULL; /* where a caller's address would be: unwinding ends here */
    *--sp = NULL; /* a call is made with sp a multiple of 16 */
    *--sp = (void *)(uintptr_t)host_begin;
    *--sp = NULL;                             /* rbp */
    *--sp = (void *)(uintptr_t)entry;         /* rbx */
    *--sp = argument;                         /* r12 */
    for (int i = 0; i < 3; i++) *--sp = NULL; /* r13, r14, r15 */
    return sp;
}

#elif defined(__aarch64__)

__asm__(".text\n" BEGIN("host_switch") "    sub sp, sp, #176\n"
                                       "    stp x19, x20, [sp, #0]\n"
                                       "    stp x21, x22, [sp, #16]\n"
                                       "    stp x23, x24, [sp, #32]\n"
                                       "    stp x25, x26, [sp, #48]\n"
                                       "    stp x27, x28, [sp, #64]\n"
                                       "    stp x29, x30, [sp, #80]\n"
                                       "    stp d8, d9, [sp, #96]\n"
                                       "    stp d10, d11, [sp, #112]\n"
                                       "    stp d12, d13, [sp, #128]\n"
                                       "    stp d14, d15, [sp, #144]\n"
                                       "    mov x9, sp\n"
                                       "    str x9, [x0]\n"
                                       "    mov sp, x1\n"
                                       "    ldp x19, x20, [sp, #0]\n"
                                       "    ldp x21, x22, [sp, #16]\n"
                                       "    ldp x23, x24, [sp, #32]\n"
                                       "    ldp x25, x26, [sp, #48]\n"
                                       "    ldp x27, x28, [sp, #64]\n"
                                       "    ldp x29, x30, [sp, #80]\n"
                                       "    ldp d8, d9, [sp, #96]\n"
                                       "    ldp d10, d11, [sp, #112]\n"
                                       "    ldp d12, d13, [sp, #128]\n"
                                       "    ldp d14, d15, [sp, #144]\n"
                                       "    add sp, sp, #176\n"
                                       "    ret\n" END("host_switch")
                                           BEGIN("host_begin") /* entry in x19, argument in x20 */
        "    mov x0, x20\n"
        "    blr x19\n"
        "    brk #0\n" END("host_begin"));

void host_begin(void);

void *host_stack_new(void *base, size_t bytes, void (*entry)(void *), void *argument) {
    uintptr_t top = ((uintptr_t)base + bytes) & ~(uintptr_t)15;
    uint64_t *sp = (uint64_t *)(top - 176);
    memset(sp, 0, 176);
    sp[0] = (uint64_t)(uintptr_t)entry;
    sp[1] = (uint64_t)(uintptr_t)argument;
    sp[11] = (uint64_t)(uintptr_t)host_begin; /* x30 */
    return sp;
}

#else

#include <ucontext.h>

/* The "stack pointer" is the address of a ucontext at the low end of the stack. */
typedef struct slow_stack {
    ucontext_t context;
    void (*entry)(void *);
    void *argument;
} slow_stack;

static void slow_begin(unsigned high, unsigned low) {
    slow_stack *s = (slow_stack *)(((uintptr_t)high << 16 << 16) | low);
    s->entry(s->argument);
}

void host_switch(void **from, void *to) {
    ucontext_t here;
    *from = &here;
    swapcontext(&here, &((slow_stack *)to)->context);
}

void *host_stack_new(void *base, size_t bytes, void (*entry)(void *), void *argument) {
    slow_stack *s = base;
    s->entry = entry, s->argument = argument;
    getcontext(&s->context);
    s->context.uc_stack.ss_sp = s + 1;
    s->context.uc_stack.ss_size = bytes - sizeof *s;
    s->context.uc_link = NULL;
    uintptr_t at = (uintptr_t)s;
    makecontext(&s->context, (void (*)(void))slow_begin, 2, (unsigned)(at >> 16 >> 16),
                (unsigned)at);
    return s;
}

#endif
