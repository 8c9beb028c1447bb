/* menu.c: `flashchat` without words: one screen, single keys.
 *
 * What talks with a model runs as a program of its own, so that its memory is given back when it
 * ends. On a terminal one key is enough; in a pipe a line is; the end of the input leaves. */
#include <stdio.h>
#include <string.h>

#include "run_self.h"
#include "screen.h"
#include "status.h"

static void meter(const status *s) {
    char bar[24], line[300], a[16], b[16];
    double used = s->here.memory ? (double)s->need.least / (double)s->here.memory : 0;
    int full = used > 1 ? 10 : (int)(used * 10 + 0.5);
    for (int i = 0; i < 10; i++) bar[i] = i < full ? '#' : '.';
    bar[10] = '\0';
    snprintf(line, sizeof line, "[%s] %s of %s of memory, with a context window of %d tokens", bar,
             human_memory(a, s->need.least), human_memory(b, s->here.memory), s->context);
    print_wrapped(stdout, "  needs    ", line);
}

static void show(const status *s) {
    char line[800];
    printf("\n%sflashchat%s\n", style(STYLE_BOLD), STYLE_END);
    snprintf(line, sizeof line, "%s%s", s->model,
             s->model_ready ? "" : " (not on this machine yet: press m)");
    print_wrapped(stdout, "  model    ", line);
    if (s->m) meter(s);
    status_server_text(s, line, sizeof line);
    print_wrapped(stdout, "  server   ", line);
    printf("\n  n  new chat\n  r  resume a chat\n  s  server %s\n  t  status\n  c  configure\n"
           "  m  models: get, manage\n  d  doctor\n  q  quit\n",
           s->server_kind == SERVER_NONE || s->outdated ? "on" : "off");
}

static void models_screen(void) {
    char list[] = "models", *words[] = {list, NULL};
    char name[200];
    command_models(1, words);
    int key = ask_key("  g  get a model   m  manage files   other  back : ");
    if (key == 'm') {
        char manage[] = "manage", *manage_words[] = {manage, NULL};
        command_manage(1, manage_words);
    }
    if (key != 'g' || !ask_line("  which one? ", name, sizeof name) || !name[0]) return;
    char download[] = "download", *download_words[] = {download, name, NULL};
    command_download(2, download_words);
}

static void act(int key, const status *s) {
    char word[] = "config", *words[] = {word, NULL};
    switch (key) {
    case 'n': run_self("chat", NULL); break;
    case 'r': run_self("chat", "--resume"); break;
    case 's':
        run_self("serve", s->server_kind == SERVER_NONE || s->outdated ? "--background" : "--stop");
        break;
    case 't': command_status(1, words); break;
    case 'c': command_config(1, words); break;
    case 'm': models_screen(); break;
    case 'd': command_doctor(1, words); break;
    default: puts("  Please press one of the keys shown."); break;
    }
}

int menu_run(void) {
    for (;;) {
        char word[] = "menu", *words[] = {word, NULL};
        int argc = 1, rc;
        product p;
        status s;
        if (!product_open(&p, "menu", &argc, words, &rc)) return rc;
        status_get(&p, &s);
        show(&s);
        int key = ask_key("  : ");
        if (key >= 0 && key != 'q' && key != 'x' && key != '\n') act(key, &s);
        product_close(&p);
        if (key < 0 || key == 'q' || key == 'x') return 0;
    }
}
