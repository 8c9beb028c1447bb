# flashchat: one Makefile. `make help` lists the targets.
#
# Sources are found, not listed: src/*/*.c make the library, apps/NAME/*.c make build/NAME, tests/unit/test_*.c make one
# test program each, tests/fuzz/fuzz_*.c one fuzzer each, tools/NAME/*.c make build/NAME. Instruction-set files get their
# flags per object (ISA_FLAGS below), so that one binary runs on any machine of its architecture.

BUILD ?= build
OPT   ?= aggressive
# Linux, or Darwin: macOS with the Command Line Tools, no Xcode project. What differs there stands in SYSTEM_... below.
SYSTEM := $(shell uname -s)
ifeq ($(origin CC),default)
CC := $(if $(filter Darwin,$(SYSTEM)),clang,gcc)
endif
AR    ?= ar
SAN   ?=
PKG_CONFIG ?= pkg-config

WARN := -Wall -Wextra -Wshadow -Wconversion -Wvla -Werror
OPT_aggressive   := -O3
OPT_conservative := -O2
OPT_debug        := -O0 -g3 -DFM_DEBUG
ifeq ($(OPT_$(OPT)),)
$(error OPT=$(OPT): known are aggressive, conservative, debug)
endif

ARCH := $(patsubst arm64,aarch64,$(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1))
SYSTEM_DEFINES := $(if $(filter Darwin,$(SYSTEM)),-D_DARWIN_C_SOURCE,-D_GNU_SOURCE)
SYSTEM_LIBS := $(if $(filter Darwin,$(SYSTEM)),-framework Metal -framework Foundation,-lpthread -lm -ldl)
SHARED := $(BUILD)/libflashmoe.$(if $(filter Darwin,$(SYSTEM)),dylib,so)
SHARED_FLAGS := $(if $(filter Darwin,$(SYSTEM)),-dynamiclib -install_name @rpath/libflashmoe.dylib,-shared)
# Homebrew's openssl and curl are not where pkg-config looks by itself. (Make 3.81, Apple's, exports nothing to $(shell).)
ifeq ($(SYSTEM),Darwin)
BREW := $(shell brew --prefix 2>/dev/null)
BREW_PATHS := $(PKG_CONFIG_PATH):$(BREW)/opt/openssl@3/lib/pkgconfig:$(BREW)/opt/curl/lib/pkgconfig
FIND_LIBS := env PKG_CONFIG_PATH='$(BREW_PATHS)' $(PKG_CONFIG)
else
FIND_LIBS := $(PKG_CONFIG)
endif
LIBS_PKG := jansson libpcre2-8 libutf8proc libxxhash libzstd libmicrohttpd libcurl libcrypto
FOUND_FLAGS := $(shell $(FIND_LIBS) --cflags $(LIBS_PKG) 2>/dev/null)
LIBS := $(shell $(FIND_LIBS) --libs $(LIBS_PKG) 2>/dev/null) $(SYSTEM_LIBS)
URING := $(shell $(PKG_CONFIG) --exists liburing 2>/dev/null && echo yes)
ifeq ($(URING),yes)
FOUND_FLAGS += -DFM_HAVE_URING
LIBS += -luring
endif

# What only the chat's terminal needs: Markdown, line editing.
TERMINAL_PKG := md4c libedit
FOUND_FLAGS += $(shell $(PKG_CONFIG) --cflags $(TERMINAL_PKG) 2>/dev/null)
TERMINAL_LIBS := $(shell $(PKG_CONFIG) --libs $(TERMINAL_PKG) 2>/dev/null)

# -ffp-contract=off: a fused multiply-add only where the source says so, or results differ between machines.
CFLAGS_ALL := -std=gnu17 $(WARN) $(OPT_$(OPT)) -g -fPIC -ffp-contract=off -fno-math-errno -fno-trapping-math \
	-fvisibility=hidden $(SYSTEM_DEFINES) -Isrc -Iinclude $(FOUND_FLAGS) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all) $(CFLAGS)
LDFLAGS_ALL := $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)

ISA_FLAGS_cpu_avx2   := -mavx2 -mfma -mf16c
ISA_FLAGS_cpu_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
ISA_FLAGS_cpu_avx2_int   := -mavx2 -mfma -mf16c
ISA_FLAGS_cpu_avxvnni_int := -mavx2 -mfma -mf16c -mavxvnni
ISA_FLAGS_cpu_avx512_int := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi -mfma -mf16c
ISA_FLAGS_cpu_avx512_bf16 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mf16c
ISA_FLAGS_cpu_neondot_int := -march=armv8.2-a+dotprod
ISA_FLAGS_cpu_neonmm_int := -march=armv8.2-a+dotprod+i8mm
ifneq ($(ARCH),x86_64)
ISA_FLAGS_cpu_avx2 :=
ISA_FLAGS_cpu_avx512 :=
ISA_FLAGS_cpu_avx2_int :=
ISA_FLAGS_cpu_avxvnni_int :=
ISA_FLAGS_cpu_avx512_int :=
ISA_FLAGS_cpu_avx512_bf16 :=
endif
ifneq ($(ARCH),aarch64)
ISA_FLAGS_cpu_neondot_int :=
ISA_FLAGS_cpu_neonmm_int :=
endif

LIB_SRC  := $(sort $(wildcard src/*/*.c src/gpu/*/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
ifeq ($(SYSTEM),Darwin)
LIB_OBJ  := $(filter-out %/metal_none.o,$(LIB_OBJ)) \
	$(patsubst %.m,$(BUILD)/obj/%.o,$(wildcard src/gpu/metal/*.m)) $(BUILD)/obj/gen/metal_source.o
endif
COMMON_SRC := $(sort $(wildcard apps/common/*.c))
APP_SRC  := $(sort $(wildcard apps/flashchat/*.c))
INFER_SRC := $(sort $(wildcard apps/infer/*.c))
GOLDEN_SRC := $(sort $(wildcard tests/golden/*.c))
TOKDIFF_SRC := $(sort $(wildcard tests/tokenizer/*.c))
FAKE_SERVER_SRC := $(sort $(wildcard tests/server/*.c))
TEMPLATE_SRC := $(sort $(wildcard tests/template/*.c))
GRAMMAR_SRC := $(sort $(wildcard tests/grammar/*.c))
SYNTH_SRC := $(sort $(wildcard tools/synth-model/*.c))
KERNEL_BENCH_SRC := $(sort $(wildcard bench/kernel_bench*.c))
MODEL_BENCH_SRC := $(sort $(wildcard bench/model_bench*.c))
STREAM_BENCH_SRC := $(sort $(wildcard bench/stream_bench*.c)) bench/limits.c bench/slow_disk.c
GPU_BENCH_SRC := $(sort $(wildcard bench/gpu_bench*.c)) bench/limits.c
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/%)
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/%)
EXAMPLE_SRC := $(sort $(wildcard examples/*.c))
EXAMPLE_BIN := $(EXAMPLE_SRC:examples/%.c=$(BUILD)/examples/%)
APP_LIBS ?= $(LIBS)

PROGRAMS := $(if $(APP_SRC),$(BUILD)/flashchat) $(if $(INFER_SRC),$(BUILD)/infer)
TOOLS := $(if $(GOLDEN_SRC),$(BUILD)/golden-check) $(if $(SYNTH_SRC),$(BUILD)/synth-model) \
	$(if $(TOKDIFF_SRC),$(BUILD)/tokenizer-diff) $(if $(FAKE_SERVER_SRC),$(BUILD)/fake-server) \
	$(if $(TEMPLATE_SRC),$(BUILD)/template-diff) $(BUILD)/kernel-bench $(BUILD)/model-bench \
	$(BUILD)/stream-bench $(BUILD)/gpu-bench \
	$(if $(GRAMMAR_SRC),$(BUILD)/grammar-sample)

GPUCHECK_SRC := $(sort $(wildcard tests/gpu/*.c))
TOOLS += $(if $(GPUCHECK_SRC),$(BUILD)/gpu-check)

# A make below this one: its own build folder, and all processors unless make was already told how many.
SUBMAKE = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell getconf _NPROCESSORS_ONLN))
SANITIZED = OPT=conservative CC=clang

.PHONY: all help lib tests examples goldens clean print-build-config print-sources flags-changed
.PHONY: cli-smoke manage-smoke test-clients api-smoke check test asan ubsan tsan fuzz fuzz-run fuzzers cross-test
all: lib $(PROGRAMS) $(TOOLS)   ## everything a user runs
lib: $(BUILD)/libflashmoe.a $(SHARED)
examples: $(EXAMPLE_BIN)
tests: $(UNIT_BIN) $(EXAMPLE_BIN)

# One short line for each command; V=1 shows the commands.
say = $(if $(V),,@echo "  $(1)  $(2)"; )

# Objects are made anew when the compiler or its flags change.
FLAGS_NOW := $(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(LIBS)
$(BUILD)/flags: flags-changed
	@mkdir -p $(@D)
	@printf '%s\n' '$(FLAGS_NOW)' | cmp -s - $@ || printf '%s\n' '$(FLAGS_NOW)' > $@

$(BUILD)/obj/%.o: %.c Makefile $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CFLAGS_ALL) $(ISA_FLAGS_$(notdir $*)) -MMD -MP -c $< -o $@

# Kernels for NVIDIA cards, where nvcc is there (CUDA=no leaves them out): machine code for every architecture of
# CUDA_ARCHS and code that a newer driver translates. One image, put into the library by src/gpu/cuda/cuda_image.c.
# -fmad=false: multiply-adds are fused where the source says so, as on the processor.
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
# CUDA: yes, no, or auto: in `make portable` and `make bench-gpu`, because it takes minutes.
CUDA ?= auto
CUDA_WANTED := $(if $(filter auto,$(CUDA)),$(filter portable bench-gpu,$(MAKECMDGOALS)),$(filter-out no,$(CUDA)))
CUDA_ARCHS ?= 75 80 86 89 90 120
KERNEL_SRC := $(wildcard src/gpu/kernels/*)
CUDA_IMAGE := $(if $(CUDA_WANTED),$(if $(NVCC),$(BUILD)/gpu/kernels.fatbin))
CUDA_TARGETS = $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
	-gencode arch=compute_80,code=compute_80
$(BUILD)/gpu/kernels.fatbin: $(KERNEL_SRC) $(BUILD)/gpu/image-flags
	@mkdir -p $(@D)
	$(call say,NVCC,$@)$(NVCC) -fatbin -fmad=false -std=c++17 -Isrc $(CUDA_TARGETS) -o $@ src/gpu/kernels/entry.cu
$(BUILD)/gpu/image-flags: flags-changed
	@mkdir -p $(@D)
	@printf '%s\n' '$(CUDA_IMAGE) $(CUDA_ARCHS)' | cmp -s - $@ || printf '%s\n' '$(CUDA_IMAGE) $(CUDA_ARCHS)' > $@
$(BUILD)/obj/src/gpu/cuda/cuda_image.o: $(CUDA_IMAGE) $(BUILD)/gpu/image-flags
ISA_FLAGS_cuda_image := $(if $(CUDA_IMAGE),-DFM_CUDA_IMAGE='"$(CUDA_IMAGE)"')

$(BUILD)/libflashmoe.a: $(LIB_OBJ)
	@rm -f $@
	$(call say,AR,$@)$(AR) rcs $@ $^

$(SHARED): $(LIB_OBJ)
	$(call say,LD,$@)$(CC) $(SHARED_FLAGS) $(LDFLAGS_ALL) $^ -o $@ $(LIBS)

define program
$(BUILD)/$(1): $(2:%.c=$(BUILD)/obj/%.o) $(BUILD)/libflashmoe.a
	$$(call say,LD,$$@)$$(CC) $$(LDFLAGS_ALL) $$^ -o $$@ $$(APP_LIBS)
endef
$(BUILD)/flashchat $(BUILD)/flashchat-test $(BUILD)/metal/flashchat: APP_LIBS += $(TERMINAL_LIBS)
$(if $(APP_SRC),$(eval $(call program,flashchat,$(APP_SRC) $(COMMON_SRC))))
$(if $(INFER_SRC),$(eval $(call program,infer,$(INFER_SRC) $(COMMON_SRC))))
$(if $(GOLDEN_SRC),$(eval $(call program,golden-check,$(GOLDEN_SRC) $(COMMON_SRC))))
$(if $(SYNTH_SRC),$(eval $(call program,synth-model,$(SYNTH_SRC))))
$(if $(TOKDIFF_SRC),$(eval $(call program,tokenizer-diff,$(TOKDIFF_SRC))))
$(if $(FAKE_SERVER_SRC),$(eval $(call program,fake-server,$(FAKE_SERVER_SRC))))
$(if $(TEMPLATE_SRC),$(eval $(call program,template-diff,$(TEMPLATE_SRC))))

$(eval $(call program,kernel-bench,$(KERNEL_BENCH_SRC)))
$(eval $(call program,model-bench,$(MODEL_BENCH_SRC) $(COMMON_SRC)))
# Reads as of a slower disk: bench/slow_disk.h.
ifneq ($(SYSTEM),Darwin)
$(BUILD)/stream-bench: LDFLAGS_ALL += $(foreach f,start next room in_flight close,-Wl,--wrap=io_$(f))
endif
$(eval $(call program,stream-bench,$(STREAM_BENCH_SRC) $(COMMON_SRC)))
$(eval $(call program,gpu-bench,$(GPU_BENCH_SRC) $(COMMON_SRC)))

# Objective-C of macOS: no ARC (metal_driver.m says why).
$(BUILD)/obj/%.o: %.m Makefile $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,OBJC,$<)$(CC) $(CFLAGS_ALL) -fno-objc-arc -MMD -MP -c $< -o $@

# Metal. On macOS metal_driver.m takes the place of metal_none.c (see LIB_SRC). Elsewhere the driver is compiled for
# tests: clang, GNUstep's Foundation and a Metal written for the purpose (tests/metal_stand_in), linked before the
# library, whose metal_none.o is then not asked for.
METAL_TEXT := src/gpu/metal/flatten.sh $(wildcard src/gpu/kernels/*.inc src/gpu/kernels/*.h src/gpu/kernels/*.metal)
$(BUILD)/gen/metal_source.c: $(METAL_TEXT)
	@mkdir -p $(@D)
	$(call say,FLATTEN,$@)src/gpu/metal/flatten.sh > $@.new && mv $@.new $@
$(BUILD)/obj/gen/metal_source.o: $(BUILD)/gen/metal_source.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CFLAGS_ALL) -c $< -o $@

STAND_IN := tests/metal_stand_in
OBJC_HEADERS := $(dir $(firstword $(wildcard /usr/lib/gcc/$(shell uname -m)-linux-gnu/*/include/objc/objc.h)))..
OBJC_STAND_IN := -std=gnu17 $(filter-out -Wvla,$(WARN)) -O1 -g -fPIC -ffp-contract=off -D_GNU_SOURCE -Isrc \
	-I$(STAND_IN) -fno-objc-arc -fobjc-runtime=gcc -fconstant-string-class=NSConstantString -fexceptions \
	-isystem /usr/include/GNUstep -isystem $(OBJC_HEADERS) -D_NATIVE_OBJC_EXCEPTIONS -DGNUSTEP \
	-DGNUSTEP_BASE_LIBRARY=1 -DGNU_RUNTIME=1
OBJC_SEES := $(wildcard $(STAND_IN)/*.h $(STAND_IN)/Metal/*.h src/gpu/*.h src/gpu/*/*.h src/base/*.h)
$(BUILD)/metal/obj/metal_driver.o: src/gpu/metal/metal_driver.m $(OBJC_SEES)
$(BUILD)/metal/obj/metal_device.o: src/gpu/metal/metal_device.m $(OBJC_SEES)
$(BUILD)/metal/obj/stand_in.o: $(STAND_IN)/stand_in.m $(OBJC_SEES)
$(BUILD)/metal/obj/stand_in_compiler.o: $(STAND_IN)/stand_in_compiler.m $(OBJC_SEES)
$(BUILD)/metal/obj/%.o:
	@mkdir -p $(@D)
	$(call say,OBJC,$<)clang $(OBJC_STAND_IN) $(OBJC_EXTRA) -c $< -o $@
METAL_TEST_OBJ := $(patsubst %,$(BUILD)/metal/obj/%.o,metal_driver metal_device stand_in stand_in_compiler) \
	$(BUILD)/obj/gen/metal_source.o
define metal_program
$(BUILD)/metal/$(1): $(2:%.c=$(BUILD)/obj/%.o) $(METAL_TEST_OBJ) $(BUILD)/libflashmoe.a
	$$(call say,LD,$$@)clang $$(LDFLAGS_ALL) $$^ -o $$@ -L$(OBJC_HEADERS)/.. -lgnustep-base -lobjc $$(APP_LIBS)
endef
$(eval $(call metal_program,gpu-check,$(GPUCHECK_SRC)))
$(eval $(call metal_program,golden-check,$(GOLDEN_SRC) $(COMMON_SRC)))
$(eval $(call metal_program,flashchat,$(APP_SRC) $(COMMON_SRC)))
METAL_PROGRAMS := $(addprefix $(BUILD)/metal/,gpu-check golden-check flashchat)
metal-stand-in: $(METAL_PROGRAMS)   ## programs whose Metal is played by the processor, for tests (clang, GNUstep)
HAVE_GNUSTEP := $(and $(shell command -v clang 2>/dev/null),$(OBJC_HEADERS:..=), \
	$(wildcard /usr/include/GNUstep/Foundation/Foundation.h))
metal-for-tests: $(if $(HAVE_GNUSTEP),metal-stand-in)
.PHONY: metal-stand-in metal-for-tests

# Needs nothing but the C library, so that it runs on a bare machine with a card.
$(BUILD)/gpu-check: $(GPUCHECK_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/libflashmoe.a
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) $^ -o $@ $(SYSTEM_LIBS)
$(if $(GRAMMAR_SRC),$(eval $(call program,grammar-sample,$(GRAMMAR_SRC))))

# The program with answers given beforehand (serve_script.h), for tests of real clients. Not installed.
TEST_APP_OBJ := $(APP_SRC:%.c=$(BUILD)/obj/test-build/%.o)
$(BUILD)/obj/test-build/%.o: %.c Makefile $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$< (test build))$(CC) $(CFLAGS_ALL) -DFM_TEST_BUILD -MMD -MP -c $< -o $@
$(BUILD)/flashchat-test: $(TEST_APP_OBJ) $(COMMON_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/libflashmoe.a
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) $^ -o $@ $(APP_LIBS)

# Tests of the program's own parts find them in an archive; only what they use is linked.
$(BUILD)/flashchat.a: $(filter-out %/main.o,$(APP_SRC:%.c=$(BUILD)/obj/%.o)) $(COMMON_SRC:%.c=$(BUILD)/obj/%.o)
	@rm -f $@
	$(call say,AR,$@)$(AR) rcs $@ $^
$(BUILD)/tests/test_app_%: $(BUILD)/obj/tests/unit/test_app_%.o $(BUILD)/flashchat.a $(BUILD)/libflashmoe.a
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) $^ -o $@ -lcmocka $(TERMINAL_LIBS) $(LIBS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libflashmoe.a
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) $^ -o $@ -lcmocka $(LIBS)

$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(BUILD)/libflashmoe.a
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) $^ -o $@ $(LIBS)

$(BUILD)/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/libflashmoe.a
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer $^ -o $@ $(TERMINAL_LIBS) $(LIBS)
.SECONDARY: $(UNIT_SRC:%.c=$(BUILD)/obj/%.o) $(FUZZ_SRC:%.c=$(BUILD)/obj/%.o) $(EXAMPLE_SRC:%.c=$(BUILD)/obj/%.o)

# The stamp is younger than every archive it stands for; directories land in $(BUILD)/golden/NAME.
tool-template-smoke: $(BUILD)/infer   ## render a request, parse a reply, without weights
	@BUILD=$(BUILD) tests/template/smoke.sh
.PHONY: tool-template-smoke

goldens: $(BUILD)/golden/.unpacked   ## unpack the golden checkpoints
$(BUILD)/golden/.unpacked: $(wildcard tests/golden/*.tar.xz)
	@mkdir -p $(@D)
	@for a in $^; do tar -C $(@D) -xJf "$$a" || exit 1; done
	@touch $@

# A folder that runs on a machine without development packages: programs, the shared libraries that they need beside
# them ($ORIGIN), kernels for NVIDIA cards inside where nvcc is there. Models are not in it.
PORTABLE := $(BUILD)/portable
portable_link = @$(CC) $(LDFLAGS_ALL) -s -Wl,-rpath,'$$ORIGIN/lib',--disable-new-dtags $(1) $(BUILD)/libflashmoe.a \
	-o $(PORTABLE)/$(2) $(3) $(LIBS)
portable: $(BUILD)/libflashmoe.a $(PROGRAMS) $(TOOLS)   ## a folder for machines without packages (with kernels where nvcc is)
	@rm -rf $(PORTABLE) && mkdir -p $(PORTABLE)/lib
	$(call portable_link,$(APP_SRC:%.c=$(BUILD)/obj/%.o) $(COMMON_SRC:%.c=$(BUILD)/obj/%.o),flashchat,$(TERMINAL_LIBS))
	$(call portable_link,$(INFER_SRC:%.c=$(BUILD)/obj/%.o) $(COMMON_SRC:%.c=$(BUILD)/obj/%.o),infer)
	$(call portable_link,$(GOLDEN_SRC:%.c=$(BUILD)/obj/%.o) $(COMMON_SRC:%.c=$(BUILD)/obj/%.o),golden-check)
	$(call portable_link,$(SYNTH_SRC:%.c=$(BUILD)/obj/%.o),synth-model)
	$(call portable_link,$(GPUCHECK_SRC:%.c=$(BUILD)/obj/%.o),gpu-check)
	$(call portable_link,$(GPU_BENCH_SRC:%.c=$(BUILD)/obj/%.o) $(COMMON_SRC:%.c=$(BUILD)/obj/%.o),gpu-bench)
	@bench/portable_libs.sh $(PORTABLE)
	@mkdir $(PORTABLE)/assets && cp -r assets/models $(PORTABLE)/assets/
	@du -sh $(PORTABLE)
bench-gpu: portable   ## goldens, kernels and speeds on this machine's NVIDIA card
	@PROGRAMS=$(PORTABLE) bench/gpu.sh
.PHONY: portable bench-gpu

test:   ## install what tests need, run every test
	@tests/install.sh test
	@$(SUBMAKE) all tests goldens $(BUILD)/flashchat-test metal-for-tests
	@tests/run.sh

check:   ## fast tests, under a minute
	@$(SUBMAKE) all tests goldens $(BUILD)/flashchat-test metal-for-tests
	@tests/run.sh --fast

asan:   ## unit tests and bad input under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(SUBMAKE) goldens
	@$(SUBMAKE) BUILD=$(BUILD)/asan SAN=address,undefined $(SANITIZED) all tests
	@BUILD=$(BUILD)/asan tests/run.sh --sanitized

ubsan:   ## unit tests and bad input under UndefinedBehaviorSanitizer alone
	@$(SUBMAKE) goldens
	@$(SUBMAKE) BUILD=$(BUILD)/ubsan SAN=undefined $(SANITIZED) all tests
	@BUILD=$(BUILD)/ubsan tests/run.sh --sanitized

tsan:   ## unit tests and the server under ThreadSanitizer
	@$(SUBMAKE) BUILD=$(BUILD)/tsan SAN=thread $(SANITIZED) tests $(BUILD)/tsan/fake-server
	@BUILD=$(BUILD)/tsan tests/run.sh --threads

fuzz:   ## build the fuzzers (clang; address and undefined sanitizers)
	@$(SUBMAKE) BUILD=$(BUILD)/fuzz SAN=fuzzer-no-link,address,undefined $(SANITIZED) fuzzers
fuzzers: $(FUZZ_BIN)

fuzz-run: fuzz   ## run each fuzzer for FUZZ_SECONDS (60)
	@BUILD=$(BUILD) tests/fuzz/run.sh

cross-test:   ## unit and golden tests for aarch64, under an emulator
	@BUILD=$(BUILD) tests/cross.sh

cli-smoke: all   ## the command line: settings, prompt, chat, README
	@tests/run.sh cli/

test-clients: all   ## the SDKs and the coding agents of npm against the server (the agents: 1.1 GB, once)
	@tests/install.sh test
	@$(SUBMAKE) $(BUILD)/flashchat-test
	@tests/run.sh clients/

api-smoke: all   ## every endpoint of the server with curl; says what was checked
	@$(SUBMAKE) $(BUILD)/flashchat-test
	@BUILD=$(BUILD) tests/server/api_smoke.sh

manage-smoke: all   ## models: download from a local hub, archive, restore, remove
	@tests/run.sh cli/manage hub/hub test_archive

# Benchmarks of the model in MODEL (the bundled one by default), each with its share of the machine's limit.
BENCHMARKS := run verify moe moebench full fullbench
MODEL ?=
.PHONY: $(BENCHMARKS) bench bench-plot
run:        ## benchmark: one expert, one token
verify:     ## benchmark: every instruction set against the scalar code
moe:        ## benchmark: the experts of one layer
moebench:   ## benchmark: the same, 10 times
full:       ## benchmark: the whole model, one token
fullbench:  ## benchmark: the same, 3 times
$(BENCHMARKS): $(BUILD)/flashchat
	@$(BUILD)/flashchat benchmark $@ $(if $(MODEL),--model $(MODEL))

bench: $(BUILD)/flashchat   ## one expert, decode and prefill; appends to bench/results
	@bench/record.sh $(BUILD)/flashchat $(MODEL)

bench-plot:   ## draw bench/results as bench/results/progress.svg
	@bench/plot.sh

clean:   ## remove everything that was built
	rm -rf $(BUILD)

help:   ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | sort | awk -F'\t' '{printf "  %-20s %s\n", $$1, $$2}'
	@echo "variables: OPT=aggressive|conservative|debug  CC=  BUILD=  SAN=address,undefined  FUZZ_SECONDS=  V=1"

print-build-config:   ## compiler, flags, libraries
	@echo "CC=$(CC)  ARCH=$(ARCH)  OPT=$(OPT)  BUILD=$(BUILD)  io_uring=$(or $(URING),no)"
	@echo "CFLAGS=$(CFLAGS_ALL)"
	@echo "LIBS=$(LIBS)"

# What some rule above compiles; tests/style compares it with what lies in the tree.
print-sources:
	@printf '%s\n' $(LIB_SRC) $(COMMON_SRC) $(APP_SRC) $(INFER_SRC) $(GOLDEN_SRC) $(SYNTH_SRC) $(TOKDIFF_SRC) \
		$(FAKE_SERVER_SRC) $(TEMPLATE_SRC) $(GRAMMAR_SRC) $(KERNEL_BENCH_SRC) $(MODEL_BENCH_SRC) \
		$(STREAM_BENCH_SRC) $(GPU_BENCH_SRC) \
		$(UNIT_SRC) $(FUZZ_SRC) $(EXAMPLE_SRC)
	@printf '%s\n' $(GPUCHECK_SRC)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
