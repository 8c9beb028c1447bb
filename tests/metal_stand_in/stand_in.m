/* stand_in.m: a Metal that runs on the processor, for tests of metal_driver.m.
 *
 *     newLibraryWithSource   clang++ compiles the text that it is given (stand_in_compiler.m)
 *     dispatchThreadgroups   the group's threads are the fibers of gpu/host/host_group.h
 *     commit                 does nothing: commands run when somebody waits for them, as late as a
 *                            GPU might, so that a driver that forgets to wait reads old bytes
 *
 * Rules that Metal's API validation knows are checked and stop the program: encoders ended, sizes
 * and alignments, threads of a group, bytes of setBytes, no-copy memory at pages, every buffer
 * resident when something is launched, fences between encoders, a device mixed with another's
 * objects.
 *
 * FM_STAND_IN, a list with commas, makes it fail or be another machine:
 *     no-device, old-device            no GPU; one without Metal 3
 *     library, pipeline=KERNEL         the source, a pipeline does not compile
 *     width=64, threads=KERNEL         SIMD groups of another size; a kernel with small groups only
 *     buffer=N                         the Nth buffer is not given
 *     commit=N, code=C                 the Nth command buffer ends with error C (8: out of memory)
 *     buffer-max=B, working-set=B      limits in bytes
 *     no-residency                     macOS 13 and 14: no residency sets
 * FM_STAND_IN_DIR: where compiled kernels are kept. FM_STAND_IN_REPORT=1: at exit, how many objects
 * are left and what was made. */
#import <Metal/Metal.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"
#include "gpu/host/host_group.h"
#include "stand_in.h"

#define PAGE_BYTES   ((size_t)getpagesize())
#define SET_BYTES    4096
#define SHARED_BYTES (32 * 1024)
#define FLIGHT_MAX   64

void stand_in_broken(const char *rule) {
    fprintf(stderr, "stand-in Metal: %s\n", rule);
    abort();
}

static void must_hold(BOOL good, const char *rule) {
    if (!good) stand_in_broken(rule);
}

/* ---- what is asked for ---- */

static BOOL asked(const char *word, char *value, size_t size) {
    const char *at = getenv("FM_STAND_IN");
    size_t n = strlen(word);
    while (at && *at) {
        size_t length = strcspn(at, ",");
        if (strncmp(at, word, n) == 0 && (length == n || at[n] == '=')) {
            size_t k = length > n ? length - n - 1 : 0;
            if (value) snprintf(value, size, "%.*s", (int)k, at + length - k);
            return YES;
        }
        at += length + (at[length] == ',');
    }
    return NO;
}

static uint64_t asked_number(const char *word, uint64_t otherwise) {
    char text[64];
    return asked(word, text, sizeof text) ? strtoull(text, NULL, 10) : otherwise;
}

static BOOL asked_name(const char *word, NSString *name) {
    char text[64];
    return asked(word, text, sizeof text) && strcmp(text, [name UTF8String]) == 0;
}

/* ---- objects are counted ---- */

static int live, made_buffers, made_commits, made_pipelines, made_launches, made_wraps;

static void report(void) {
    fprintf(stderr,
            "stand-in Metal: %d objects left; %d buffers (%d wrapped), %d pipelines, %d command "
            "buffers, %d launches\n",
            live, made_buffers, made_wraps, made_pipelines, made_commits, made_launches);
}

@interface StandIn : NSObject
@end
@implementation StandIn
- (id)init {
    self = [super init];
    live++;
    return self;
}
- (void)dealloc {
    live--;
    [super dealloc];
}
@end

NSError *stand_in_error(NSInteger code, NSString *text) {
    NSDictionary *info = [NSDictionary dictionaryWithObject:text forKey:NSLocalizedDescriptionKey];
    return [NSError errorWithDomain:@"StandInMetal" code:code userInfo:info];
}

@implementation MTLCompileOptions
- (void)setLanguageVersion:(MTLLanguageVersion)version {
    _version = version;
}
- (MTLLanguageVersion)languageVersion {
    return _version;
}
- (void)setFastMathEnabled:(BOOL)on {
    _fast = on;
}
- (BOOL)fastMathEnabled {
    return _fast;
}
- (id)init {
    self = [super init];
    _fast = YES; /* Metal's default */
    return self;
}
@end

@implementation MTLFunctionConstantValues
- (void)setConstantValue:(const void *)value type:(MTLDataType)type atIndex:(NSUInteger)index {
    must_hold(type == MTLDataTypeInt && index < 16, "function constants are ints here");
    memcpy(&_value[index], value, sizeof(int));
    _set[index] = YES;
}
@end

@implementation MTLResidencySetDescriptor
@end

/* ---- buffers ---- */

@interface StandInBuffer : StandIn <MTLBuffer> {
  @public
    uint8_t *_host, *_map; /* _map NULL: the caller's */
    size_t _length, _mapped;
    NSMutableSet *_all; /* of the device */
}
@end
@implementation StandInBuffer
- (NSUInteger)length {
    return _length;
}
- (void *)contents {
    return _host;
}
- (uint64_t)gpuAddress {
    return (uint64_t)(uintptr_t)_host;
}
- (void)dealloc {
    [_all removeObject:[NSValue valueWithPointer:self]];
    [_all release];
    if (_map) munmap(_map, _mapped);
    [super dealloc];
}
@end

/* ---- kernels ---- */

typedef void (*kernel_call)(const void *args, void *shared, const unsigned *at);

@interface StandInLibrary : StandIn <MTLLibrary> {
  @public
    void *_so;
    int *_constants;
}
@end

@interface StandInFunction : StandIn <MTLFunction> {
  @public
    kernel_call _call;
    NSString *_name;
    int *_constants; /* of the library */
    int _value[16];
}
@end
@implementation StandInFunction
- (void)dealloc {
    [_name release];
    [super dealloc];
}
@end

@implementation StandInLibrary
- (id<MTLFunction>)newFunctionWithName:(NSString *)name
                        constantValues:(MTLFunctionConstantValues *)values
                                 error:(NSError **)error {
    char symbol[128];
    snprintf(symbol, sizeof symbol, "call_%s", [name UTF8String]);
    void *call = dlsym(_so, symbol);
    if (!call) {
        *error = stand_in_error(1, @"the function is not in the library");
        return nil;
    }
    for (int i = 0; i < 3; i++) must_hold(values->_set[i], "a function constant has no value");
    StandInFunction *f = [[StandInFunction alloc] init];
    f->_call = (kernel_call)call;
    f->_name = [name retain];
    f->_constants = _constants;
    memcpy(f->_value, values->_value, sizeof f->_value);
    return f;
}
- (void)dealloc {
    dlclose(_so);
    [super dealloc];
}
@end

@interface StandInPipeline : StandIn <MTLComputePipelineState> {
  @public
    StandInFunction *_function;
}
@end
@implementation StandInPipeline
- (NSUInteger)maxTotalThreadsPerThreadgroup {
    return asked_name("threads", _function->_name) ? 32 : 1024;
}
- (NSUInteger)threadExecutionWidth {
    return asked_number("width", 32);
}
- (void)dealloc {
    [_function release];
    [super dealloc];
}
@end

/* ---- running a group ---- */

typedef struct hooks {
    void (*barrier)(void);
    uint32_t (*simd_xor)(uint32_t x, int mask);
    uint32_t (*simd_from)(uint32_t x, int lane);
    float (*float_of_half)(uint16_t h);
    uint16_t (*half_of_float)(float x);
} hooks;

static host_fiber *current;
static StandInFunction *running;

static void hook_barrier(void) {
    host_fiber *f = current;
    host_barrier(f);
    current = f;
}
static uint32_t hook_xor(uint32_t x, int mask) {
    host_fiber *f = current;
    uint32_t y = host_simd_xor(f, x, mask);
    current = f;
    return y;
}
static uint32_t hook_from(uint32_t x, int lane) {
    host_fiber *f = current;
    uint32_t y = host_simd_from(f, x, lane);
    current = f;
    return y;
}
static float hook_float(uint16_t h) { return f16_to_f32(h); }
static uint16_t hook_half(float x) { return f32_to_f16(x); }

static void body(host_where at, const void *args, float *shared) {
    unsigned numbers[5] = {(unsigned)at.thread, (unsigned)at.threads, (unsigned)at.group_x,
                           (unsigned)at.group_y, (unsigned)at.group_z};
    current = at.fiber;
    running->_call(args, shared, numbers);
}

/* ---- events, fences, residency ---- */

@interface StandInEvent : StandIn <MTLSharedEvent> {
  @public
    uint64_t _value;
}
@end
@implementation StandInEvent
- (uint64_t)signaledValue {
    return _value;
}
- (void)setSignaledValue:(uint64_t)value {
    _value = value;
}
@end

@interface StandInFence : StandIn <MTLFence> {
  @public
    BOOL _updated;
}
@end
@implementation StandInFence
@end

@interface StandInResidency : StandIn <MTLResidencySet> {
  @public
    NSMutableSet *_wished, *_set; /* of NSValue pointers */
}
@end
@implementation StandInResidency
- (id)init {
    self = [super init];
    _wished = [[NSMutableSet alloc] init];
    _set = [[NSMutableSet alloc] init];
    return self;
}
- (void)addAllocation:(id<MTLAllocation>)a {
    [_wished addObject:[NSValue valueWithPointer:a]];
}
- (void)removeAllocation:(id<MTLAllocation>)a {
    [_wished removeObject:[NSValue valueWithPointer:a]];
}
- (void)commit {
    [_set setSet:_wished];
}
- (void)dealloc {
    [_wished release];
    [_set release];
    [super dealloc];
}
@end

/* ---- command buffers ---- */

typedef enum command_kind { LAUNCH, COPY, FILL, SIGNAL, WAIT } command_kind;

typedef struct command {
    command_kind kind;
    id object, other; /* retained: pipeline, buffers, event */
    uint8_t args[SET_BYTES];
    host_launch launch;
    size_t from, to, size;
    uint64_t value;
} command;

@class StandInQueue, StandInDevice;

@interface StandInCommands : StandIn <MTLCommandBuffer> {
  @public
    StandInQueue *_queue; /* retained */
    command **_list;      /* owned */
    size_t _n;
    id _encoder; /* not retained; the open one */
    MTLCommandBufferStatus _status;
    NSError *_error;
    double _end;
    BOOL _runs;
    int _number;
}
- (command *)add:(command_kind)kind;
- (void)run;
@end

@interface StandInQueue : StandIn <MTLCommandQueue> {
  @public
    StandInDevice *_device;     /* retained */
    NSMutableArray *_committed; /* not yet run, in order */
    StandInResidency *_residency;
    BOOL _unordered; /* an encoder ended and none has waited for its fence */
}
@end

@interface StandInDevice : StandIn <MTLDevice> {
  @public
    NSMutableSet *_buffers;  /* NSValue pointers */
    NSMutableArray *_queues; /* NSValue pointers */
    host_runner *_runner;
    int _order;
}
@end

@interface StandInEncoder : StandIn <MTLComputeCommandEncoder, MTLBlitCommandEncoder> {
  @public
    StandInCommands *_commands; /* retained */
    StandInPipeline *_pipeline;
    uint8_t _args[SET_BYTES];
    NSUInteger _args_length, _shared;
    NSMutableSet *_used;
    BOOL _compute, _ended, _updated;
}
@end

@implementation StandInCommands
- (command *)add:(command_kind)kind {
    must_hold(_status == MTLCommandBufferStatusNotEnqueued, "a committed buffer is added to");
    command **list = realloc(_list, (_n + 1) * sizeof *list);
    command *c = calloc(1, sizeof *c);
    if (!list || !c) stand_in_broken("no memory");
    _list = list;
    _list[_n++] = c;
    c->kind = kind;
    return c;
}
- (StandInEncoder *)encoder:(BOOL)compute {
    must_hold(_status == MTLCommandBufferStatusNotEnqueued, "an encoder of a committed buffer");
    must_hold(!_encoder, "a second encoder while one is open");
    StandInEncoder *e = [[[StandInEncoder alloc] init] autorelease];
    e->_commands = [self retain];
    e->_compute = compute;
    e->_used = [[NSMutableSet alloc] init];
    _encoder = e;
    return e;
}
- (id<MTLComputeCommandEncoder>)computeCommandEncoder {
    return [self encoder:YES];
}
- (id<MTLBlitCommandEncoder>)blitCommandEncoder {
    return [self encoder:NO];
}
- (void)encodeSignalEvent:(id<MTLEvent>)event value:(uint64_t)value {
    must_hold(!_encoder, "an event inside an encoder");
    command *c = [self add:SIGNAL];
    c->object = [event retain];
    c->value = value;
}
- (void)encodeWaitForEvent:(id<MTLEvent>)event value:(uint64_t)value {
    must_hold(!_encoder, "an event inside an encoder");
    command *c = [self add:WAIT];
    c->object = [event retain];
    c->value = value;
}
- (void)commit {
    must_hold(!_encoder, "commit with an open encoder");
    must_hold(_status == MTLCommandBufferStatusNotEnqueued, "committed twice");
    _status = MTLCommandBufferStatusCommitted;
    _number = ++made_commits;
    [_queue->_committed addObject:self];
}
- (MTLCommandBufferStatus)status {
    return _status;
}
- (NSError *)error {
    return _error;
}
- (double)GPUEndTime {
    return _end;
}
- (void)fail:(NSInteger)code text:(NSString *)text {
    _status = MTLCommandBufferStatusError;
    _error = [stand_in_error(code, text) retain];
}
- (void)waitUntilCompleted {
    must_hold(_status >= MTLCommandBufferStatusCommitted, "waiting for what was not committed");
    [self retain];
    while (_status == MTLCommandBufferStatusCommitted) {
        StandInCommands *first = [_queue->_committed objectAtIndex:0];
        if (first->_runs) break; /* an event waits for this very queue: a deadlock */
        [first run];
    }
    [self release];
}
- (BOOL)signalled:(command *)c {
    StandInEvent *event = c->object;
    while (event->_value < c->value) {
        BOOL moved = NO;
        for (NSValue *v in [[_queue->_device->_queues copy] autorelease]) {
            StandInQueue *q = [v pointerValue];
            if (event->_value >= c->value || ![q->_committed count]) continue;
            StandInCommands *first = [q->_committed objectAtIndex:0];
            if (first->_runs) continue;
            [first run];
            moved = YES;
        }
        if (!moved) return NO;
    }
    return YES;
}
- (void)launch:(command *)c {
    StandInPipeline *p = c->object;
    StandInDevice *d = _queue->_device;
    running = p->_function;
    memcpy(running->_constants, running->_value, sizeof running->_value);
    c->launch.body = body;
    c->launch.args = c->args;
    c->launch.order = d->_order;
    d->_order = (d->_order + 1) % 3;
    made_launches++;
    err e = host_run(d->_runner, &c->launch);
    if (e.code)
        [self fail:MTLCommandBufferErrorInternal text:[NSString stringWithUTF8String:e.text]];
}
- (void)do:(command *)c {
    StandInBuffer *to = c->object, *from = c->other;
    switch (c->kind) {
    case LAUNCH: [self launch:c]; break;
    case COPY: memmove(to->_host + c->to, from->_host + c->from, c->size); break;
    case FILL: memset(to->_host + c->to, (int)c->value, c->size); break;
    case SIGNAL: ((StandInEvent *)c->object)->_value = c->value; break;
    case WAIT:
        if (![self signalled:c])
            [self fail:MTLCommandBufferErrorTimeout text:@"an event never came"];
        break;
    }
}
- (void)run {
    [self retain];
    _runs = YES;
    if ((uint64_t)_number == asked_number("commit", 0))
        [self fail:(NSInteger)asked_number("code", MTLCommandBufferErrorOutOfMemory)
              text:@"asked for by the test"];
    for (size_t i = 0; i < _n && _status == MTLCommandBufferStatusCommitted; i++)
        [self do:_list[i]];
    if (_status == MTLCommandBufferStatusCommitted) _status = MTLCommandBufferStatusCompleted;
    _end = (double)os_now_ns() * 1e-9;
    [_queue->_committed removeObject:self];
    [self release];
}
- (void)dealloc {
    must_hold(!_encoder, "a command buffer goes with an open encoder");
    for (size_t i = 0; i < _n; i++) {
        [_list[i]->object release];
        [_list[i]->other release];
        free(_list[i]);
    }
    free(_list);
    [_error release];
    [_queue release];
    [super dealloc];
}
@end

@implementation StandInEncoder
- (void)endEncoding {
    must_hold(!_ended && _updated, "an encoder that nothing can wait for");
    _ended = YES;
    _commands->_encoder = nil;
    _commands->_queue->_unordered = YES;
}
- (void)updateFence:(id<MTLFence>)fence {
    ((StandInFence *)fence)->_updated = _updated = YES;
}
- (void)waitForFence:(id<MTLFence>)fence {
    must_hold(((StandInFence *)fence)->_updated, "waiting for a fence that nothing updates");
    _commands->_queue->_unordered = NO;
}
- (void)setComputePipelineState:(id<MTLComputePipelineState>)state {
    _pipeline = (StandInPipeline *)state;
}
- (void)setBytes:(const void *)bytes length:(NSUInteger)length atIndex:(NSUInteger)index {
    must_hold(_compute && index == 0 && length <= SET_BYTES,
              "setBytes: index 0, at most 4096 bytes");
    memcpy(_args, bytes, length);
    _args_length = length;
}
- (void)setThreadgroupMemoryLength:(NSUInteger)length atIndex:(NSUInteger)index {
    must_hold(index == 0 && length && length % 16 == 0 && length <= SHARED_BYTES,
              "threadgroup memory: a multiple of 16 bytes, at most 32 KiB");
    _shared = length;
}
- (void)useResources:(const id<MTLResource> *)resources
               count:(NSUInteger)count
               usage:(MTLResourceUsage)usage {
    must_hold(usage == (MTLResourceUsageRead | MTLResourceUsageWrite), "kernels read and write");
    for (NSUInteger i = 0; i < count; i++)
        [_used addObject:[NSValue valueWithPointer:resources[i]]];
}
- (void)dispatchThreadgroups:(MTLSize)groups threadsPerThreadgroup:(MTLSize)threads {
    StandInQueue *q = _commands->_queue;
    must_hold(_compute && !_ended && _pipeline && _args_length && _shared,
              "a launch without its parts");
    must_hold(threads.height == 1 && threads.depth == 1 && threads.width % 32 == 0 &&
                  threads.width <= [_pipeline maxTotalThreadsPerThreadgroup],
              "threads of a group");
    must_hold(groups.width && groups.height && groups.depth, "no groups");
    must_hold(!q->_unordered, "a launch that does not wait for the encoder before it");
    for (NSValue *b in q->_device->_buffers)
        must_hold([_used containsObject:b] || [q->_residency->_set containsObject:b],
                  "a buffer is not resident");
    command *c = [_commands add:LAUNCH];
    c->object = [_pipeline retain];
    memcpy(c->args, _args, sizeof _args);
    c->launch = (host_launch){.name = [_pipeline->_function->_name UTF8String],
                              .threads = (int)threads.width,
                              .groups_x = (int)groups.width,
                              .groups_y = (int)groups.height,
                              .groups_z = (int)groups.depth,
                              .shared_bytes = (int)_shared};
}
- (void)copyFromBuffer:(id<MTLBuffer>)from
          sourceOffset:(NSUInteger)fromOffset
              toBuffer:(id<MTLBuffer>)to
     destinationOffset:(NSUInteger)toOffset
                  size:(NSUInteger)size {
    must_hold(!_compute && !_ended && !_commands->_queue->_unordered, "a copy without its order");
    must_hold((fromOffset | toOffset | size) % 4 == 0, "copies are multiples of 4 bytes");
    must_hold(fromOffset + size <= [from length] && toOffset + size <= [to length],
              "a copy past the end of a buffer");
    command *c = [_commands add:COPY];
    c->object = [to retain];
    c->other = [from retain];
    c->from = fromOffset, c->to = toOffset, c->size = size;
}
- (void)fillBuffer:(id<MTLBuffer>)buffer range:(NSRange)range value:(uint8_t)value {
    must_hold(!_compute && !_ended && !_commands->_queue->_unordered, "a fill without its order");
    must_hold((range.location | range.length) % 4 == 0 &&
                  range.location + range.length <= [buffer length],
              "fills are multiples of 4 bytes, inside the buffer");
    command *c = [_commands add:FILL];
    c->object = [buffer retain];
    c->to = range.location, c->size = range.length, c->value = value;
}
- (void)dealloc {
    must_hold(_ended, "an encoder goes without endEncoding");
    [_used release];
    [_commands release];
    [super dealloc];
}
@end

@implementation StandInQueue
- (id<MTLCommandBuffer>)commandBuffer {
    if ([_committed count] >= FLIGHT_MAX)
        stand_in_broken("more than 64 command buffers: Metal would block");
    StandInCommands *c = [[[StandInCommands alloc] init] autorelease];
    c->_queue = [self retain];
    return c;
}
- (void)addResidencySet:(id<MTLResidencySet>)set {
    [_residency release];
    _residency = [(StandInResidency *)set retain];
}
- (void)dealloc {
    must_hold([_committed count] == 0, "a queue goes with work that nobody waited for");
    [_device->_queues removeObject:[NSValue valueWithPointer:self]];
    [_committed release];
    [_residency release];
    [_device release];
    [super dealloc];
}
@end

/* ---- the device ---- */

@implementation StandInDevice
- (NSString *)name {
    return @"Stand-in";
}
- (BOOL)hasUnifiedMemory {
    return YES;
}
- (BOOL)supportsFamily:(MTLGPUFamily)family {
    if (family == MTLGPUFamilyMetal3) return !asked("old-device", NULL, 0);
    return family <= MTLGPUFamilyApple8;
}
- (uint64_t)recommendedMaxWorkingSetSize {
    return asked_number("working-set", (uint64_t)8 << 30);
}
- (NSUInteger)maxBufferLength {
    return asked_number("buffer-max", (uint64_t)4 << 30);
}
- (NSUInteger)maxThreadgroupMemoryLength {
    return SHARED_BYTES;
}
- (id<MTLLibrary>)newLibraryWithSource:(NSString *)source
                               options:(MTLCompileOptions *)options
                                 error:(NSError **)error {
    must_hold(![options fastMathEnabled] && [options languageVersion] >= MTLLanguageVersion3_0,
              "the kernels need exact arithmetic, and addresses inside arguments: Metal 3");
    if (asked("library", NULL, 0))
        source = [source stringByAppendingString:@"\nthis is not Metal;\n"];
    NSString *so = stand_in_compile(source, error);
    if (!so) return nil;
    void *handle = dlopen([so UTF8String], RTLD_NOW | RTLD_LOCAL);
    if (!handle) stand_in_broken(dlerror());
    StandInLibrary *l = [[StandInLibrary alloc] init];
    l->_so = handle;
    l->_constants = dlsym(handle, "stand_in_constant");
    hooks *h = dlsym(handle, "stand_in");
    must_hold(h && l->_constants, "the shared object has no hooks");
    *h = (hooks){hook_barrier, hook_xor, hook_from, hook_float, hook_half};
    return l;
}
- (id<MTLComputePipelineState>)newComputePipelineStateWithFunction:(id<MTLFunction>)function
                                                             error:(NSError **)error {
    StandInFunction *f = (StandInFunction *)function;
    if (asked_name("pipeline", f->_name)) {
        *error = stand_in_error(2, @"asked for by the test");
        return nil;
    }
    StandInPipeline *p = [[StandInPipeline alloc] init];
    p->_function = [f retain];
    made_pipelines++;
    return p;
}
- (id<MTLCommandQueue>)newCommandQueue {
    StandInQueue *q = [[StandInQueue alloc] init];
    q->_device = [self retain];
    q->_committed = [[NSMutableArray alloc] init];
    [_queues addObject:[NSValue valueWithPointer:q]];
    return q;
}
- (StandInBuffer *)newBuffer {
    if ((uint64_t)++made_buffers == asked_number("buffer", 0)) return nil;
    StandInBuffer *b = [[StandInBuffer alloc] init];
    b->_all = [_buffers retain];
    [_buffers addObject:[NSValue valueWithPointer:b]];
    return b;
}
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)length options:(MTLResourceOptions)options {
    must_hold(options == (MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked),
              "shared storage, hazards not tracked");
    must_hold(length && length <= [self maxBufferLength], "a buffer longer than maxBufferLength");
    StandInBuffer *b = [self newBuffer];
    if (!b) return nil;
    /* It ends at a page that cannot be touched, and begins as what no kernel wants. */
    size_t used = round_up(length, 16);
    b->_mapped = round_up(used, PAGE_BYTES) + PAGE_BYTES;
    b->_map = mmap(NULL, b->_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->_map == MAP_FAILED) stand_in_broken("no memory");
    uint8_t *guard = b->_map + b->_mapped - PAGE_BYTES;
    if (mprotect(guard, PAGE_BYTES, PROT_NONE)) stand_in_broken("cannot protect a page");
    memset(b->_map, 0xff, b->_mapped - PAGE_BYTES);
    b->_host = guard - used;
    b->_length = length;
    return b;
}
- (id<MTLBuffer>)newBufferWithBytesNoCopy:(void *)bytes
                                   length:(NSUInteger)length
                                  options:(MTLResourceOptions)options
                              deallocator:(void *)block {
    must_hold(options == (MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked),
              "shared storage, hazards not tracked");
    must_hold(!block && (uintptr_t)bytes % PAGE_BYTES == 0 && length % PAGE_BYTES == 0,
              "no-copy memory is whole pages");
    must_hold(length && length <= [self maxBufferLength], "a buffer longer than maxBufferLength");
    unsigned char there;
    must_hold(mincore(bytes, PAGE_BYTES, &there) == 0 &&
                  mincore((char *)bytes + length - PAGE_BYTES, PAGE_BYTES, &there) == 0,
              "no-copy memory that is not mapped");
    StandInBuffer *b = [self newBuffer];
    if (!b) return nil;
    made_wraps++;
    b->_host = bytes;
    b->_length = length;
    return b;
}
- (id<MTLFence>)newFence {
    return [[StandInFence alloc] init];
}
- (id<MTLSharedEvent>)newSharedEvent {
    return [[StandInEvent alloc] init];
}
- (id<MTLResidencySet>)newResidencySetWithDescriptor:(MTLResidencySetDescriptor *)descriptor
                                               error:(NSError **)error {
    (void)descriptor, (void)error;
    return asked("no-residency", NULL, 0) ? nil : [[StandInResidency alloc] init];
}
- (void)dealloc {
    must_hold([_buffers count] == 0, "the device goes and a buffer stays");
    [_buffers release];
    [_queues release];
    host_runner_close(_runner);
    [super dealloc];
}
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void) {
    static BOOL first = YES;
    if (first && getenv("FM_STAND_IN_REPORT")) atexit(report);
    first = NO;
    if (asked("no-device", NULL, 0)) return nil;
    StandInDevice *d = [[StandInDevice alloc] init];
    err e = host_runner_open(&d->_runner);
    if (e.code) stand_in_broken(e.text);
    d->_buffers = [[NSMutableSet alloc] init];
    d->_queues = [[NSMutableArray alloc] init];
    return d;
}
