/* hub_access.c: see hub_access.h. */
#include "hub_access.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/json.h"
#include "models.h"
#include "screen.h"

static atomic_bool cancelled; /* set by the signal handler */

static void on_signal(int number) {
    (void)number;
    atomic_store(&cancelled, true);
}

const atomic_bool *cancel_watch(void) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    atomic_store(&cancelled, false);
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    return &cancelled;
}

void cancel_unwatch(void) {
    struct sigaction a = {.sa_handler = SIG_DFL};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static err token_file(char *out) {
    const char *path = getenv("HF_TOKEN_PATH"), *home = getenv("HF_HOME");
    char dir[PATH_TEXT_MAX];
    if (path && *path) return path_expand(out, path);
    if (home && *home) {
        TRY(path_expand(dir, home));
        return path_join(out, dir, "token");
    }
    return path_expand(out, "~/.cache/huggingface/token");
}

static err find_token(char *out, size_t size) {
    const char *set = getenv("HF_TOKEN");
    char path[PATH_TEXT_MAX], *text;
    size_t length;
    out[0] = '\0';
    if (set && *set) {
        if (strlen(set) >= size) return err_make(ERR_ARG, "HF_TOKEN is too long to be a token");
        memcpy(out, set, strlen(set) + 1);
        return err_none();
    }
    if (token_file(path).code || json_read_text(path, size - 1, &text, &length).code)
        return err_none(); /* none: public models need none */
    while (length && (unsigned char)text[length - 1] <= 32) length--;
    memcpy(out, text, length);
    out[length] = '\0';
    free(text);
    return err_none();
}

static void on_progress(void *ctx, const hub_progress *p) { progress_show(ctx, NULL, p); }

err hub_access_begin(const settings *c, hub_access *out) {
    const char *endpoint = getenv("HF_ENDPOINT"), *offline = getenv("HF_HUB_OFFLINE");
    memset(out, 0, sizeof *out);
    if (offline && *offline && strcmp(offline, "0"))
        return err_make(ERR_ARG,
                        "HF_HUB_OFFLINE is set: nothing is asked of the hub. Unset it to go on");
    if (!endpoint || !*endpoint) endpoint = "https://huggingface.co";
    if (strlen(endpoint) >= sizeof out->endpoint)
        return err_make(ERR_ARG, "HF_ENDPOINT is too long");
    memcpy(out->endpoint, endpoint, strlen(endpoint) + 1);
    for (size_t n = strlen(endpoint); n && out->endpoint[n - 1] == '/';) out->endpoint[--n] = '\0';
    TRY(models_cache_dir(c, out->cache));
    TRY(find_token(out->token, sizeof out->token));
    out->options = (hub_options){.cache = out->cache,
                                 .endpoint = out->endpoint,
                                 .token = out->token[0] ? out->token : NULL,
                                 .cancel = cancel_watch(),
                                 .progress = on_progress,
                                 .progress_ctx = out};
    out->last_tenth = -1;
    return err_none();
}

void hub_access_end(hub_access *a) {
    progress_end(a);
    cancel_unwatch();
    memset(a->token, 0, sizeof a->token);
}

/* ---- progress ---- */

static void draw_bar(hub_access *a, int percent, const char *text) {
    int width = screen_width() - 1, room = width - text_width(text) - 8;
    if (room > 30) room = 30;
    printf("\r%3d%% ", percent);
    if (room >= 8) {
        putchar('[');
        for (int i = 0; i < room - 2; i++) putchar(i < (room - 2) * percent / 100 ? '#' : '.');
        printf("] ");
    } else {
        room = 0;
    }
    int left = width - 5 - (room ? room + 1 : 0);
    print_cell(stdout, text, left > 4 ? left : 4);
    fflush(stdout);
    a->bar = true;
}

void progress_show(hub_access *a, const char *what, const hub_progress *p) {
    char done[16], total[16], rate[16], left[24], text[200];
    int percent =
        p->bytes_total ? (int)(100 * ((double)p->bytes_done / (double)p->bytes_total)) : 100;
    if (percent > 100) percent = 100;
    int n = snprintf(text, sizeof text, "%s%s%s of %s", what ? what : "", what ? " " : "",
                     human_bytes(done, p->bytes_done), human_bytes(total, p->bytes_total));
    if (p->note)
        snprintf(text + n, sizeof text - (size_t)n, ", %s", p->note);
    else if (p->bytes_per_second > 0)
        snprintf(text + n, sizeof text - (size_t)n, ", %s/s, %s left",
                 human_bytes(rate, (uint64_t)p->bytes_per_second),
                 human_time(left, p->seconds_left));
    if (isatty(STDOUT_FILENO)) {
        draw_bar(a, percent, text);
    } else if (percent / 10 != a->last_tenth) {
        printf("%3d%%  %s\n", percent, text);
        fflush(stdout);
    }
    a->last_tenth = percent / 10;
}

void progress_end(hub_access *a) {
    if (a->bar) putchar('\n');
    a->bar = false;
    a->last_tenth = -1;
}
