/* doctor_report.c: see doctor_report.h. One file with what matters for a report of speed or of a
 * failure: versions, processor, memory, GPU, findings. No serial number is ever read; no path, user
 * or host name gets through report_scrub. */
#include "doctor_report.h"

#include <ctype.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/os.h"
#include "cpu/cpu.h"
#include "flashmoe.h"
#include "gpu/gpu.h"

#define REPORT_FILE "flashchat-report.txt"
#define LINE_BYTES  1024

/* ---- privacy ---- */

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_' || c == '-'; }

/* Every whole word `name` of text becomes `with`. */
static void replace_word(char *text, size_t size, const char *name, const char *with) {
    size_t n = strlen(name), w = strlen(with);
    char *at = text;
    while (n && (at = strstr(at, name))) {
        bool whole = (at == text || !is_word(at[-1])) && !is_word(at[n]);
        size_t rest = strlen(at + n) + 1, before = (size_t)(at - text);
        if (!whole || before + w + rest > size) {
            at += n;
            continue;
        }
        memmove(at + w, at + n, rest);
        memcpy(at, with, w);
        at += w;
    }
}

void report_scrub(const private_names *p, const char *text, char *out, size_t size) {
    snprintf(out, size, "%s", text);
    for (char *c = out; *c; c++) {
        if (*c == '\n' || *c == '\r') *c = ' ';
        bool begins = c == out || strchr(" \"'(=:", c[-1]);
        bool path = *c == '/' || (*c == '~' && (c[1] == '/' || isalpha((unsigned char)c[1])));
        if (!begins || !path) continue;
        snprintf(c, size - (size_t)(c - out), "<path>");
        break;
    }
    replace_word(out, size, p->home, "<home>");
    replace_word(out, size, p->user, "<user>");
    replace_word(out, size, p->host, "<host>");
}

static void names_get(private_names *p) {
    *p = (private_names){0};
    const char *home = getenv("HOME"), *user = getenv("USER");
    struct passwd *me = getpwuid(getuid());
    if (!user && me) user = me->pw_name;
    snprintf(p->home, sizeof p->home, "%s", home ? home : me ? me->pw_dir : "");
    snprintf(p->user, sizeof p->user, "%s", user ? user : "");
    if (gethostname(p->host, sizeof p->host) != 0) p->host[0] = '\0';
    p->host[sizeof p->host - 1] = '\0';
    p->host[strcspn(p->host, ".")] = '\0';
}

/* ---- the parts ---- */

typedef struct paper {
    FILE *f;
    private_names names;
} paper;

static void line(paper *p, const char *name, const char *text) {
    char clean[LINE_BYTES];
    report_scrub(&p->names, text, clean, sizeof clean);
    fprintf(p->f, "%-14s %s\n", name, clean);
}

static void write_system(paper *p) {
    struct utsname u;
    char text[LINE_BYTES], model[200];
    os_memory m;
    os_memory_get(&m);
    os_cpu_name(model, sizeof model);
    snprintf(text, sizeof text, "%s, compiler %s", FM_VERSION, __VERSION__);
    line(p, "flashchat", text);
    if (uname(&u) == 0) { /* not nodename */
        snprintf(text, sizeof text, "%s %s %s", u.sysname, u.release, u.machine);
        line(p, "system", text);
    }
    snprintf(text, sizeof text, "%s, %d usable cores, kernels %s", model, os_cpu_count(),
             cpu_best()->name);
    line(p, "processor", text);
    snprintf(text, sizeof text, "%zu MiB, %zu MiB available, pages of %ld bytes", m.total >> 20,
             m.available >> 20, sysconf(_SC_PAGESIZE));
    line(p, "memory", text);
}

static void write_gpu(paper *p, const char *backend) {
    char text[LINE_BYTES];
    gpu_device *d = NULL;
    gpu_info info;
    err e = gpu_open(backend, 0, &d);
    if (!e.code) e = gpu_info_get(d, &info);
    if (e.code) {
        line(p, backend, e.text);
    } else {
        snprintf(text, sizeof text,
                 "%s, %d units, capability or family %d.%d, memory %zu MiB, free %zu MiB, longest "
                 "buffer %zu MiB, group memory %d bytes, unified %s, all kernels compiled",
                 info.name, info.units, info.major, info.minor, info.memory >> 20, info.free >> 20,
                 info.buffer_max >> 20, info.shared_bytes, info.unified ? "yes" : "no");
        line(p, backend, text);
    }
    gpu_close(d);
}

static void write_findings(paper *p, const json_t *findings) {
    size_t i;
    const json_t *f;
    char text[2 * LINE_BYTES];
    fprintf(p->f, "\n");
    json_array_foreach(findings, i, f) {
        snprintf(text, sizeof text, "%s: %s", json_string_value(json_object_get(f, "verdict")),
                 json_string_value(json_object_get(f, "found")));
        line(p, json_string_value(json_object_get(f, "name")), text);
    }
}

int doctor_report(const json_t *findings) {
    paper p = {.f = fopen(REPORT_FILE, "w")};
    if (!p.f) {
        fprintf(stderr, "flashchat doctor: cannot write %s here; change to a folder of yours\n",
                REPORT_FILE);
        return 1;
    }
    names_get(&p.names);
    fprintf(p.f, "flashchat report. No user name, host name, path or serial number is in it.\n\n");
    write_system(&p);
    write_gpu(&p, "metal");
    write_gpu(&p, "cuda");
    write_findings(&p, findings);
    bool good = !ferror(p.f);
    good = fclose(p.f) == 0 && good;
    if (!good) fprintf(stderr, "flashchat doctor: %s could not be written\n", REPORT_FILE);
    if (good)
        printf("Written: %s. Read it before you send it; docs/MACOS.md says what to add.\n",
               REPORT_FILE);
    return good ? 0 : 1;
}
