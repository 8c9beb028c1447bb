#!/usr/bin/env python3
"""Whether a Metal text uses only what the Metal Shading Language Specification (version 3) documents.

  words.py FILE          the text after the preprocessor: what the Metal compiler parses. Prints a sentence for each word
                         that is not known, nothing when all are
  words.py --self-test   shows that each rule can fail

The compiler itself would say more; there is none here. Address spaces are checked by a real type system elsewhere: clang
as OpenCL C (tests/gpu/lint.sh) and as C++ with tests/metal_stand_in/metal_stdlib.
"""
import re
import sys

# 2.1, 2.2, 2.8: types; 4: address spaces; 5.1: kernel; 1.4: what of C++ is there.
TYPES = "void bool char uchar short ushort int uint long ulong half float uint3 uint4 float4 unsigned signed".split()
SPACES = "device constant threadgroup thread".split()
CPP = ("kernel const static inline struct enum typedef if else for while do switch case default break continue return "
       "sizeof true false").split()
ATTRIBUTES = ("buffer threadgroup thread_index_in_threadgroup threads_per_threadgroup threadgroup_position_in_grid "
              "function_constant max_total_threads_per_threadgroup").split()
LIBRARY = ("metal::threadgroup_barrier metal::mem_flags::mem_threadgroup metal::mem_flags::mem_device "
           "metal::simd_shuffle_xor metal::simd_shuffle metal::fma metal::precise::sqrt "
           "metal::simdgroup_barrier").split()
# 1.4.4 and 1.5: not in the language.
MISSING = ("double new delete throw try catch goto virtual dynamic_cast typeid thread_local register asm volatile wchar_t "
           "long_long auto template class private protected operator friend union extern").split()
CALLS = "as_type".split()


def check(text):
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)
    pragmas = [x for x in re.findall(r"^\s*#\s*(.*)$", text, re.M) if not re.match(r"\d+ |line ", x)]
    text = re.sub(r"^\s*#.*$", " ", text, flags=re.M)
    out = []
    for p in pragmas:
        if not re.fullmatch(r"pragma (METAL fp (math_mode\(safe\)|contract\(off\))|clang fp contract\(off\)|unroll)", p.strip()):
            out.append(f"directive: {p}")
    for a in re.findall(r"\[\[\s*(\w+)", text):
        if a not in ATTRIBUTES:
            out.append(f"attribute: {a}")
    text = re.sub(r"\[\[[^\]]*\]\]", " ", text)
    for n in re.findall(r"\bmetal(?:\s*::\s*\w+)+", text):
        if re.sub(r"\s", "", n) not in LIBRARY:
            out.append(f"library: {n}")
    text = re.sub(r"\bmetal(?:\s*::\s*\w+)+\s*\(?", " ", text)
    if re.search(r"\w\s*::\s*\w", text):
        out.append("a namespace other than metal")
    for n in re.findall(r"(?<![\w.])(?:\d+\.\d*|\.\d+|\d+(?=[eE][-+]?\d))(?:[eE][-+]?\d+)?(?!\w|\.)", text):
        out.append(f"number without f: {n}")
    words = set(re.findall(r"\b[A-Za-z_]\w*\b", text))
    out += [f"not in Metal: {w}" for w in MISSING if w in words]
    if re.search(r"\blong\s+long\b", text):
        out.append("not in Metal: long long")
    structs = set(re.findall(r"\btypedef\s+(?:struct|enum)\b[^{;]*\{[^}]*\}\s*(\w+)\s*;", text))
    structs |= set(re.findall(r"\btypedef\s+[\w\s]+?\b(\w+)\s*;", text))
    functions = set(re.findall(r"\b(?:static\s+inline|kernel)\s+[\w\s*]*?\b(\w+)\s*\(", text))
    for n in set(re.findall(r"\b([A-Za-z_]\w*)\s*(?:<\s*\w+\s*>\s*)?\(", text)):
        if n not in functions | structs | set(CPP) | set(TYPES) | set(CALLS):
            out.append(f"called and not defined: {n}")
    # A declaration: type, then a name. Every such type is known.
    for n in set(re.findall(r"(?:^|[;{}(,])\s*(?:(?:static|inline|const|device|constant|threadgroup|thread)\s+)*([A-Za-z_]\w*)"
                            r"\s\*?[A-Za-z_]\w*\s*(?=[;=,)\[])", text)):
        if n not in structs | set(TYPES) | {"return", "else", "case", "struct", "enum", "typedef"}:
            out.append(f"type: {n}")
    if re.search(r"\(\s*\*\s*\w+\s*\)\s*\(", text):
        out.append("a pointer to a function")
    return sorted(set(out))


GOOD = """#pragma METAL fp contract(off)
typedef uint u32; typedef struct pair { float a, b; } pair;
constant int fixed [[function_constant(0)]];
static inline float twice(device const float *x) { return x[0] * 2.0f + as_type<float>(uint(1)); }
kernel void go(constant pair &a [[buffer(0)]], threadgroup float *s [[threadgroup(0)]], uint i [[thread_index_in_threadgroup]]) {
    for (int k = 0; k < 3; k++) s[k] = metal::fma(a.a, a.b, 1.0e3f);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
}
"""
BAD = {
    "attribute": "kernel void f(uint i [[thread_in_simdgroup]]) {}",
    "library": "static inline float g(float x) { return metal::expo(x); }",
    "number without f": "static inline float g(float x) { return x * 2.0; }",
    "not in Metal": "static inline double g(void) { return 1; }",
    "called and not defined": "static inline float g(float x) { return sqrtf(x); }",
    "type": "static inline void g(void) { int64_t x = 1; }",
    "directive": "#pragma omp simd",
    "a namespace": "static inline float g(float x) { return std::fma(x, x, x); }",
    "a pointer to a function": "static inline int g(int (*f)(int)) { return 1; }",
}


def main(arguments):
    if arguments == ["--self-test"]:
        wrong = [f"good text refused: {x}" for x in check(GOOD)]
        for rule, text in BAD.items():
            if not any(x.startswith(rule) for x in check(GOOD + text + "\n")):
                wrong.append(f"accepted: {text}")
    else:
        with open(arguments[0], encoding="utf-8") as f:
            wrong = check(f.read())
    for w in wrong:
        print(w)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
