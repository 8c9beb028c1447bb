/* manage_use.c: see manage_use.h. The truth is what the system says about open files, not what a
 * pid file claims. */
#include "manage_use.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_below(const char *path, const char *dir) {
    size_t n = strlen(dir);
    return !strncmp(path, dir, n) && (path[n] == '/' || path[n] == '\0');
}

static bool has_open(const char *pid, const char *dir) {
    char folder[300], link[600], target[PATH_MAX];
    snprintf(folder, sizeof folder, "/proc/%s/fd", pid);
    DIR *d = opendir(folder);
    bool found = false;
    for (struct dirent *f; d && !found && (f = readdir(d));) {
        snprintf(link, sizeof link, "%s/%s", folder, f->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        if (n <= 0) continue;
        target[n] = '\0';
        found = is_below(target, dir);
    }
    if (d) closedir(d);
    return found;
}

static bool has_mapped(const char *pid, const char *dir) {
    char path[300], line[PATH_MAX + 200];
    snprintf(path, sizeof path, "/proc/%s/maps", pid);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        const char *name = strchr(line, '/');
        found = name && is_below(name, dir);
    }
    if (f) fclose(f);
    return found;
}

bool folder_in_use(const char *dir, char *who, size_t size) {
    char real[PATH_MAX], path[300], name[64] = "";
    snprintf(who, size, "%s", "");
    if (!realpath(dir, real)) return false;
    DIR *d = opendir("/proc");
    bool found = false;
    for (struct dirent *p; d && !found && (p = readdir(d));) {
        if (!isdigit((unsigned char)p->d_name[0]) || strtol(p->d_name, NULL, 10) == getpid())
            continue;
        if (!has_open(p->d_name, real) && !has_mapped(p->d_name, real)) continue;
        found = true;
        snprintf(path, sizeof path, "/proc/%s/comm", p->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(name, sizeof name, f)) name[strcspn(name, "\n")] = '\0';
        if (f) fclose(f);
        snprintf(who, size, "process %.20s (%s)", p->d_name, name);
    }
    if (d) closedir(d);
    return found;
}
