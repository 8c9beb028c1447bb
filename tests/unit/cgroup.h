/* cgroup.h: a group of processes with a memory limit of its own, below the group that the test runs
 * in (version 2 of the cgroup file system). Version 1 is left alone: there the memory groups belong
 * to whoever made them. Nothing of the caller's group stays changed after cgroup_close. */
#ifndef TESTS_CGROUP_H
#define TESTS_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CGROUP_PATH 1024

typedef struct cgroup {
    char own[CGROUP_PATH];        /* the caller's */
    char child[CGROUP_PATH + 64]; /* empty: not made */
    bool handed_down;             /* memory was added to own's subtree_control */
    char why[CGROUP_PATH + 128];  /* there is no group */
} cgroup;

static inline void cgroup_file(char out[CGROUP_PATH + 128], const char *group, const char *name) {
    snprintf(out, CGROUP_PATH + 128, "%s/%s", group, name);
}

static inline bool cgroup_write(const char *group, const char *name, const char *text) {
    char path[CGROUP_PATH + 128];
    cgroup_file(path, group, name);
    FILE *f = fopen(path, "w");
    if (!f) return false;
    bool ok = fputs(text, f) >= 0;
    return !fclose(f) && ok;
}

/* The file's text; false: there is none. */
static inline bool cgroup_read(const char *group, const char *name, char *text, size_t room) {
    char path[CGROUP_PATH + 128];
    cgroup_file(path, group, name);
    FILE *f = fopen(path, "r");
    if (!f) return false;
    text[fread(text, 1, room - 1, f)] = '\0';
    fclose(f);
    return true;
}

/* "memory" among the words of a list of controllers. */
static inline bool cgroup_has_memory(const char *group, const char *name) {
    char text[512], *rest = text;
    if (!cgroup_read(group, name, text, sizeof text)) return false;
    for (char *word; (word = strsep(&rest, " \n"));)
        if (!strcmp(word, "memory")) return true;
    return false;
}

/* The number after `key` in a file of lines "key number"; key "": the file is one number. */
static inline bool cgroup_number(const cgroup *g, const char *name, const char *key, size_t *out) {
    char text[1024];
    if (!cgroup_read(g->child, name, text, sizeof text)) return false;
    size_t n = strlen(key);
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) next++;
        if (strncmp(line, key, n) || (n && line[n] != ' ')) continue;
        *out = strtoull(line + n, NULL, 10);
        return true;
    }
    return false;
}

/* False: a group that was made could not be removed, or the caller's stays changed. */
static inline bool cgroup_close(cgroup *g) {
    bool ok = !g->child[0] || !rmdir(g->child);
    g->child[0] = '\0';
    if (g->handed_down) ok &= cgroup_write(g->own, "cgroup.subtree_control", "-memory");
    g->handed_down = false;
    return ok;
}

static inline bool cgroup_none(cgroup *g, const char *why) {
    bool clean = cgroup_close(g);
    snprintf(g->why, sizeof g->why, "%s: %s%s", g->own, why, clean ? "" : "; it stays changed");
    return false;
}

/* root: where the file system is mounted; self: the file that names the caller's group. False, with
 * the reason, where a limit cannot be set. */
static inline bool cgroup_open(cgroup *g, const char *root, const char *self, size_t max) {
    char line[CGROUP_PATH / 2], number[32];
    *g = (cgroup){0};
    FILE *f = fopen(self, "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) found = !strncmp(line, "0::/", 4);
    if (f) fclose(f);
    if (!found) return snprintf(g->why, sizeof g->why, "%s: no group of version 2", self), false;
    line[strcspn(line, "\n")] = '\0';
    snprintf(g->own, sizeof g->own, "%.500s%s", root, strcmp(line, "0::/") ? line + 3 : "");
    if (!cgroup_has_memory(g->own, "cgroup.controllers"))
        return cgroup_none(g, "memory is not limited in groups of version 2");
    if (!cgroup_has_memory(g->own, "cgroup.subtree_control")) {
        if (!cgroup_write(g->own, "cgroup.subtree_control", "+memory"))
            return cgroup_none(g, "memory cannot be handed down to groups below");
        g->handed_down = true;
    }
    snprintf(g->child, sizeof g->child, "%s/flashchat-test-%d", g->own, (int)getpid());
    if (mkdir(g->child, 0755)) {
        g->child[0] = '\0';
        return cgroup_none(g, "no group can be made below");
    }
    snprintf(number, sizeof number, "%zu", max);
    if (!cgroup_write(g->child, "memory.max", number))
        return cgroup_none(g, "no limit can be set below");
    (void)cgroup_write(g->child, "memory.swap.max", "0"); /* missing where swap is not counted */
    return true;
}

/* The calling process goes in. */
static inline bool cgroup_enter(const cgroup *g) {
    return cgroup_write(g->child, "cgroup.procs", "0");
}

#endif
