/* doctor.c: `flashchat doctor`: what this machine has, what is missing, and what to do about it.
 *
 * Each finding is good, worth knowing, or bad; whatever is not good says what to do. The speeds of
 * drive and memory are measured and remembered, so that `flashchat models` can tell what to expect.
 */
#include <curl/curl.h>
#include <dlfcn.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <zstd.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/os.h"
#include "cpu/cpu.h"
#include "doctor_report.h"
#include "flashmoe.h"
#include "gpu/gpu.h"
#include "product.h"
#include "screen.h"

#define FINDINGS_MAX 32
#define CARDS_SHOWN  8

typedef enum verdict { GOOD, KNOW, BAD } verdict;

typedef struct finding {
    verdict v;
    const char *name;
    char found[300], todo[300]; /* todo is empty when nothing needs doing */
} finding;

typedef struct checkup {
    settings *c;
    model_list models;
    finding all[FINDINGS_MAX];
    int n;
    bool measure;
    bool unified;    /* the GPU computes in the machine's own memory */
    const char *gpu; /* "host" with --gpu=host, for tests; NULL: the best card */
} checkup;

static finding *add(checkup *k, verdict v, const char *name) {
    finding *f = &k->all[k->n < FINDINGS_MAX ? k->n++ : FINDINGS_MAX - 1];
    *f = (finding){.v = v, .name = name};
    return f;
}

/* The first line of a small file, or "". */
static void read_line(const char *path, char *out, size_t size) {
    out[0] = '\0';
    FILE *f = fopen(path, "re");
    if (f && fgets(out, (int)size, f)) out[strcspn(out, "\n")] = '\0';
    if (f) fclose(f);
}

/* ---- processor and memory ---- */

static void check_processor(checkup *k) {
    static const char *const wanted[] = {" avx2", " avx512f", " avx512_vnni", " avx_vnni",
                                         " asimddp"};
    char line[8192], found[200] = "";
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "flags", 5) && strncmp(line, "Features", 8)) continue;
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
            if (strstr(line, wanted[i]))
                strncat(found, wanted[i], sizeof found - strlen(found) - 1);
        break;
    }
    if (f) fclose(f);
    if (!found[0] && strcmp(cpu_best()->name, "scalar"))
        snprintf(found, sizeof found, " %s", cpu_best()->name);
    finding *o = add(k, found[0] ? GOOD : KNOW, "processor");
    snprintf(o->found, sizeof o->found, "%d usable cores; fast instructions:%s", os_cpu_count(),
             found[0] ? found : " none that flashchat knows");
    if (!found[0])
        snprintf(o->todo, sizeof o->todo,
                 "It works, slowly: a processor with AVX2 or better is wanted.");
}

static void check_memory(checkup *k) {
    os_memory m;
    char total[16], free_now[16];
    long physical = sysconf(_SC_PHYS_PAGES);
    os_memory_get(&m);
    uint64_t whole = physical > 0 ? (uint64_t)physical * (uint64_t)sysconf(_SC_PAGESIZE) : m.total;
    bool tight = m.available < m.total / 4;
    finding *o = add(k, tight ? KNOW : GOOD, "memory");
    snprintf(o->found, sizeof o->found, "%s, of which %s are free%s", human_memory(total, m.total),
             human_memory(free_now, m.available),
             m.total < whole / 100 * 99 ? " (a limit of this container or session)" : "");
    if (tight)
        snprintf(o->todo, sizeof o->todo, "Close other programs before you start a large model.");
}

static void check_limits(checkup *k) {
    struct rlimit r;
    char text[200], size[16];
    if (getrlimit(RLIMIT_MEMLOCK, &r) == 0) {
        bool all = r.rlim_cur == RLIM_INFINITY;
        finding *o = add(k, all || r.rlim_cur >= (1u << 30) ? GOOD : KNOW, "locked memory");
        snprintf(o->found, sizeof o->found, "%s may be locked",
                 all ? "everything" : human_memory(size, r.rlim_cur));
        if (o->v != GOOD)
            snprintf(o->todo, sizeof o->todo,
                     "Weights can then be pushed out by other programs. To allow it: a line "
                     "\"%s - memlock unlimited\" in /etc/security/limits.conf, then log in "
                     "again.",
                     getenv("USER") ? getenv("USER") : "*");
    }
    read_line("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text);
    if (text[0]) {
        bool off = strstr(text, "[never]") != NULL;
        finding *o = add(k, off ? KNOW : GOOD, "large pages");
        snprintf(o->found, sizeof o->found, "%s", text);
        if (off)
            snprintf(o->todo, sizeof o->todo,
                     "A few percent faster with: echo madvise | sudo tee "
                     "/sys/kernel/mm/transparent_hugepage/enabled");
    }
    read_line("/proc/sys/kernel/io_uring_disabled", text, sizeof text);
    if (text[0] && text[0] != '0') {
        finding *o = add(k, KNOW, "fast disk reads");
        snprintf(o->found, sizeof o->found, "this system has switched io_uring off");
        snprintf(o->todo, sizeof o->todo,
                 "Reading uses threads instead. To allow it: sudo sysctl "
                 "kernel.io_uring_disabled=0");
    }
}

/* ---- drive and model ---- */

static void check_places(checkup *k, const char *dir);

static void check_speed(checkup *k, const char *dir) {
    fm_machine m;
    char disk[16], memory[16];
    if (!k->measure) return;
    fm_error e = fm_machine_measure(dir, 0, 0.5, &m);
    if (e.code) {
        finding *o = add(k, KNOW, "speeds");
        snprintf(o->found, sizeof o->found, "not measured: %.250s", e.text);
        snprintf(o->todo, sizeof o->todo, "Try again when the machine is less busy.");
        return;
    }
    finding *o = add(k, m.disk_read >= 1e9 ? GOOD : KNOW, "drive");
    snprintf(o->found, sizeof o->found, "reads %s/s where the model lies%s",
             human_bytes(disk, (uint64_t)m.disk_read),
             m.disk_direct ? "" : " (no direct reads there: memory may have helped)");
    if (o->v != GOOD)
        snprintf(o->todo, sizeof o->todo,
                 "Models larger than memory need a fast drive (an NVMe SSD reads 3 GB/s and "
                 "more): flashchat config set HUGGINGFACE_CACHE_DIR FOLDER");
    o = add(k, GOOD, "memory speed");
    snprintf(o->found, sizeof o->found, "%s/s with %d threads",
             human_bytes(memory, (uint64_t)m.memory_read), m.threads);
    err saved = machine_save(k->c, m.disk_read, m.memory_read);
    if (saved.code)
        snprintf(o->todo, sizeof o->todo, "It could not be remembered: %.200s", saved.text);
}

static void check_model(checkup *k) {
    char dir[PATH_TEXT_MAX];
    const model_entry *m;
    err e = model_resolve(k->c, &k->models, settings_text(k->c, CONFIG_MODEL), dir, &m);
    finding *o = add(k, e.code ? BAD : GOOD, "model");
    if (e.code) {
        snprintf(o->found, sizeof o->found, "%.299s", e.text);
        snprintf(o->todo, sizeof o->todo, "Or choose another: flashchat config set MODEL NAME");
        return;
    }
    snprintf(o->found, sizeof o->found, "%.80s in %.200s", m ? m->id : "your own", dir);
    if (m && (e = model_agree(m, dir)).code) {
        o->v = BAD;
        snprintf(o->found, sizeof o->found, "%.299s", e.text);
        snprintf(o->todo, sizeof o->todo, "Get it again: flashchat download %s", m->id);
        return;
    }
    check_places(k, dir);
    check_speed(k, dir);
}

static void check_space(checkup *k) {
    machine h;
    char size[16], cache[PATH_TEXT_MAX];
    if (machine_get(k->c, &h).code || models_cache_dir(k->c, cache).code) return;
    finding *o = add(k, h.disk_free < 25000000000u ? KNOW : GOOD, "free space");
    snprintf(o->found, sizeof o->found, "%s on the drive of %.200s", human_bytes(size, h.disk_free),
             cache);
    if (o->v != GOOD)
        snprintf(o->todo, sizeof o->todo,
                 "A model of 35 billion weights takes 20 GB. Free some space, or use another "
                 "drive: flashchat config set HUGGINGFACE_CACHE_DIR FOLDER");
}

/* ---- the rest ---- */

/* Whether the driver in the system and its library belong together. */
static void check_driver(checkup *k, const err *why) {
    char version[300];
    read_line("/proc/driver/nvidia/version", version, sizeof version);
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    if (driver) dlclose(driver);
    bool whole = (version[0] != '\0') == (driver != NULL);
    finding *o = add(k, whole ? GOOD : KNOW, "graphics card");
    if (!version[0] && !driver) {
        snprintf(o->found, sizeof o->found, "none for computing; the processor does the work");
        return;
    }
    snprintf(o->found, sizeof o->found, "%.250s",
             version[0] ? version : "libcuda.so.1 without a driver in the system");
    if (!whole) {
        snprintf(o->todo, sizeof o->todo,
                 "Driver and its library do not go together: install the driver package of "
                 "your system anew.");
        return;
    }
    o->v = KNOW; /* it is there, and yet no card can be used */
    snprintf(o->todo, sizeof o->todo, "It is not used: %.250s", why->text);
}

static void check_card(checkup *k, const char *backend, int index) {
    gpu_device *d;
    gpu_info info = {0};
    char all[16], left[16];
    err e = gpu_open(backend, index, &d);
    if (!e.code) e = gpu_info_get(d, &info);
    gpu_close(d);
    k->unified |= info.unified;
    finding *o = add(k, e.code ? KNOW : GOOD, "graphics card");
    if (e.code) {
        snprintf(o->found, sizeof o->found, "%s:%d cannot be used", backend, index);
        snprintf(o->todo, sizeof o->todo, "%.299s", e.text);
        return;
    }
    snprintf(o->found, sizeof o->found,
             "%.90s (--gpu %s:%d), capability %d.%d, %d units; %s of memory, %s free%s", info.name,
             backend, index, info.major, info.minor, info.units, human_memory(all, info.memory),
             human_memory(left, info.free), info.unified ? ", shared with the processor" : "");
}

static void check_gpu(checkup *k) {
    const char *backend = gpu_best_backend();
    err why = err_none();
    if (!backend) {
        (void)gpu_count("cuda", &why);
        check_driver(k, &why);
        return;
    }
    int n = gpu_count(backend, NULL);
    for (int i = 0; i < n && i < CARDS_SHOWN; i++) check_card(k, backend, i);
    char version[300];
    read_line("/proc/driver/nvidia/version", version, sizeof version);
    if (!version[0]) return;
    finding *o = add(k, GOOD, "card's driver");
    snprintf(o->found, sizeof o->found, "%.250s", version);
}

/* What of the model would be where. */
static void check_places(checkup *k, const char *dir) {
    fm_options o;
    fm_plan p;
    char trunk[16], cache[16];
    fm_options_init(&o);
    o.model_dir = dir;
    o.context = (int)settings_int(k->c, CONFIG_CONTEXT_WINDOW);
    o.gpu = k->gpu;
    if (!k->gpu && !gpu_best_backend()) return;
    fm_error e = fm_plan_get(&o, &p);
    bool shared = !p.card && k->unified && !k->gpu;
    finding *f = add(k, e.code || !(p.card || shared) ? KNOW : GOOD, "on the card");
    if (e.code) {
        snprintf(f->found, sizeof f->found, "%.299s", e.text);
        return;
    }
    if (!p.card) {
        snprintf(f->found, sizeof f->found, "%s",
                 shared ? "everything: the GPU shares the machine's memory and needs no copy"
                        : "nothing of this model: no layer fits");
        return;
    }
    snprintf(f->found, sizeof f->found, "%.150s; trunk %s, %d of %d experts (%s)", p.places,
             human_memory(trunk, p.vram_trunk), p.vram_slots, p.experts * p.sparse_layers,
             human_memory(cache, p.vram_cache));
}

/* Versions of what the program runs with, curl's own list first. */
static void libraries(char *out, size_t room) {
    char pcre[32] = "?";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    pcre[strcspn(pcre, " ")] = '\0'; /* a date follows */
    snprintf(
        out, room,
        "%.120s, jansson %s, zstd %s, libmicrohttpd %s, pcre2 %s, utf8proc %s, xxhash %u.%u.%u",
        curl_version(), JANSSON_VERSION, ZSTD_versionString(), MHD_get_version(), pcre,
        utf8proc_version(), XXH_versionNumber() / 10000, XXH_versionNumber() / 100 % 100,
        XXH_versionNumber() % 100);
}

static void check_libraries(checkup *k) {
    finding *o = add(k, GOOD, "libraries");
    libraries(o->found, sizeof o->found);
}

static void check_settings(checkup *k) {
    if (!settings_problems(k->c)) {
        finding *o = add(k, GOOD, "settings");
        snprintf(o->found, sizeof o->found, "%.299s", settings_file(k->c));
    }
    for (int i = 0; i < settings_problems(k->c) && i < 8; i++) {
        finding *o = add(k, BAD, "settings");
        snprintf(o->found, sizeof o->found, "%.299s", settings_problem(k->c, i));
        snprintf(o->todo, sizeof o->todo, "Mend the line, or begin anew: flashchat config --reset");
    }
    if (!k->models.problem[0]) return;
    finding *o = add(k, BAD, "your models");
    snprintf(o->found, sizeof o->found, "%.299s", k->models.problem);
    snprintf(o->todo, sizeof o->todo, "Mend or remove that file.");
}

/* ---- showing ---- */

static const char *const verdict_words[] = {"good", "note", "bad"};

static int show(const checkup *k) {
    int bad = 0, notes = 0;
    for (int i = 0; i < k->n; i++) {
        const finding *f = &k->all[i];
        char first[40];
        screen_style s = f->v == GOOD ? STYLE_GREEN : f->v == KNOW ? STYLE_YELLOW : STYLE_RED;
        printf("%s%s%s", style(s),
               f->v == GOOD   ? "ok   "
               : f->v == KNOW ? "note "
                              : "BAD  ",
               STYLE_END);
        snprintf(first, sizeof first, "%s: ", f->name);
        int lead = 5;
        print_wrapped_after(stdout, lead, first, f->found);
        if (f->todo[0]) print_wrapped(stdout, "       -> ", f->todo);
        bad += f->v == BAD;
        notes += f->v == KNOW;
    }
    if (bad)
        printf("\n%d thing%s must be mended first.\n", bad, bad == 1 ? "" : "s");
    else
        printf("\nReady%s. Next: flashchat chat\n", notes ? ", with notes" : "");
    return bad ? 1 : 0;
}

static json_t *findings_json(const checkup *k) {
    json_t *list = json_array();
    for (int i = 0; i < k->n; i++) {
        const finding *f = &k->all[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s}", "name", f->name, "verdict",
                                        verdict_words[f->v], "found", f->found, "todo", f->todo));
    }
    return list;
}

static int show_json(const checkup *k) {
    int bad = 0;
    for (int i = 0; i < k->n; i++) bad += k->all[i].v == BAD;
    json_t *list = findings_json(k);
    json_t *all = json_pack("{s:b, s:o}", "ready", bad == 0, "findings", list);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
    return bad ? 1 : 0;
}

int command_doctor(int argc, char **argv) {
    checkup k = {0};
    bool json = take_word(&argc, argv, "--json");
    bool report = take_word(&argc, argv, "--report");
    k.measure = !take_word(&argc, argv, "--no-measure");
    k.gpu = take_word(&argc, argv, "--gpu=host") ? "host" : NULL;
    err e = settings_open_args(&argc, argv, &k.c);
    if (e.code) return product_fail("doctor", e);
    screen_colours(settings_text(k.c, CONFIG_COLOR_OUTPUT));
    e = models_load(k.c, &k.models);
    check_processor(&k);
    check_memory(&k);
    check_limits(&k);
    check_gpu(&k);
    check_libraries(&k);
    check_settings(&k);
    if (!e.code) check_model(&k);
    check_space(&k);
    int rc = json ? show_json(&k) : show(&k);
    if (report) {
        json_t *list = findings_json(&k);
        rc = doctor_report(list);
        json_decref(list);
    }
    if (e.code) rc = product_fail("doctor", e);
    models_free(&k.models);
    settings_close(k.c);
    return rc;
}

int command_version(int argc, char **argv) {
    (void)argc, (void)argv;
    char list[300];
    libraries(list, sizeof list);
    printf("flashchat %s\n%s\n", FM_VERSION, list);
    return 0;
}
