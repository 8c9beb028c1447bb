/* stand_in_compiler.m: what stands in for Metal's compiler: clang++, after the few changes to the
 * text that make C++ of it (metal_stdlib beside this file has the language's words). Shared objects
 * are kept by the hash of both texts. */
#import <Metal/Metal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stand_in.h"

/* What Metal's compiler does itself: constants of a pipeline, structs loaded from device memory. */
static NSString *as_cplusplus(NSString *source) {
    NSMutableString *text = [NSMutableString stringWithString:source];
    static const char *const constants[] = {"kind", "bits", "group"};
    for (int i = 0; i < 3; i++) {
        NSString *from = [NSString
            stringWithFormat:@"constant int fixed_%s [[function_constant(%d)]];", constants[i], i];
        NSString *to = [NSString
            stringWithFormat:@"static int &fixed_%s = stand_in_constant[%d];", constants[i], i];
        if ([text rangeOfString:from].length == 0)
            stand_in_broken("the source has other function constants");
        [text replaceOccurrencesOfString:from
                              withString:to
                                 options:0
                                   range:NSMakeRange(0, [text length])];
    }
    /* A word of the language and of an attribute: no macro can be both. */
    [text replaceOccurrencesOfString:@"[[threadgroup(0)]]"
                          withString:@""
                             options:0
                               range:NSMakeRange(0, [text length])];
    static const char *const loaded[] = {"gpu_row", "gpu_segment", "gpu_active", "gpu_slot"};
    for (int i = 0; i < 4; i++) {
        NSString *from = [NSString stringWithFormat:@"typedef struct %s {", loaded[i]];
        NSString *to = [NSString stringWithFormat:@"%@ STAND_IN_LOADS(%s)", from, loaded[i]];
        [text replaceOccurrencesOfString:from
                              withString:to
                                 options:0
                                   range:NSMakeRange(0, [text length])];
    }
    [text appendString:@"\n#define CALL(name, args, n) extern \"C\" "
                       @"__attribute__((visibility(\"default\"))) void "
                       @"call_##name(const void *a, void *s, const unsigned *at) { "
                       @"name(*(constant args *)(unsigned long)a, (threadgroup float *)(unsigned "
                       @"long)s, at[0], "
                       @"uint3{at[1], 1, 1}, uint3{at[2], at[3], at[4]}); }\nGPU_KERNELS(CALL)\n"];
    return text;
}

static NSString *contents_of(NSString *path) {
    NSString *text = [NSString stringWithContentsOfFile:path
                                               encoding:NSUTF8StringEncoding
                                                  error:NULL];
    return text ? text : @"";
}

static BOOL shell(NSString *command_line) { return system([command_line UTF8String]) == 0; }

NSString *stand_in_compile(NSString *source, NSError **error) {
    const char *dir = getenv("FM_STAND_IN_DIR"), *here = getenv("FM_STAND_IN_SOURCES");
    if (!dir) dir = "build/metal/kernels";
    if (!here) here = "tests/metal_stand_in";
    NSString *text = as_cplusplus(source);
    NSString *words = contents_of([NSString stringWithFormat:@"%s/metal_stdlib", here]);
    uint64_t hash = 14695981039346656037u;
    for (int part = 0; part < 2; part++)
        for (const char *p = [part ? words : text UTF8String]; *p; p++)
            hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    NSString *base = [NSString stringWithFormat:@"%s/%016llx", dir, (unsigned long long)hash];
    NSString *so = [base stringByAppendingString:@".so"];
    if (access([so UTF8String], R_OK) == 0) return so;
    mkdir(dir, 0777);
    NSString *mine = [NSString stringWithFormat:@"%@.%d", base, (int)getpid()];
    NSString *log = [mine stringByAppendingString:@".log"];
    [text writeToFile:[mine stringByAppendingString:@".cc"]
           atomically:NO
             encoding:NSUTF8StringEncoding
                error:NULL];
    BOOL good = shell([NSString
        stringWithFormat:@"clang++ -x c++ -std=c++14 -O1 -fPIC -shared -fvisibility=hidden "
                         @"-ffp-contract=off -fno-math-errno -D__METAL_VERSION__=300 -I'%s' "
                         @"-Wall -Wno-unknown-attributes -Wno-unknown-pragmas "
                         @"-Wno-unused-function -Wno-duplicate-decl-specifier -Werror "
                         @"'%@.cc' -o '%@.so' -lm >'%@' 2>&1 && mv '%@.so' '%@'",
                         here, mine, mine, log, mine, so]);
    if (!good) *error = stand_in_error(3, contents_of(log));
    unlink([log UTF8String]);
    unlink([[mine stringByAppendingString:@".cc"] UTF8String]);
    return good ? so : nil;
}
