/* Any text as Markdown in the chat: no crash, no line too wide, nothing that a terminal obeys, and
 * the same lines however the text was cut. The first byte chooses width and looks. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../apps/flashchat/chat_code.c"
#include "../../apps/flashchat/chat_md.c"
#include "../../apps/flashchat/chat_md_layout.c"

/* open: what is left at the end is drawn as a block that may go on. */
typedef struct way {
    size_t piece;
    bool open;
} way;

static void render_all(const char *text, size_t length, way w, const md_look *look, md_lines *out) {
    md_splitter s = {0};
    char *held = malloc(length + 1);
    size_t n = 0, whole;
    if (!held) abort();
    for (size_t from = 0; from < length; from += w.piece) {
        size_t more = length - from < w.piece ? length - from : w.piece;
        memcpy(held + n, text + from, more);
        n += more;
        while ((whole = md_next_segment(&s, held, n))) {
            if (whole > n || !md_render(held, whole, look, false, out)) abort();
            memmove(held, held + whole, n - whole);
            n -= whole;
        }
    }
    if (!md_render(held, n, look, w.open, out)) abort();
    free(held);
}

static void check_lines(const md_lines *l, const md_look *look) {
    for (int i = 0; i < l->n; i++) {
        if (l->items[i].width > look->width) abort();
        for (const char *p = l->items[i].text; *p; p++) {
            unsigned char c = (unsigned char)*p;
            if (c == 127 || (c < 32 && !(c == 27 && look->styled))) abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 4096) return 0;
    const char *text = (const char *)data + 1;
    md_look look = {
        .width = 12 + data[0] % 80, .styled = (data[0] & 1) != 0, .unicode = (data[0] & 2) != 0};
    md_lines whole = {0}, open = {0}, cut = {0};
    render_all(text, size - 1, (way){size, false}, &look, &whole);
    render_all(text, size - 1, (way){7, true}, &look, &open);
    render_all(text, size - 1, (way){5, false}, &look, &cut);
    if (whole.n != cut.n) abort();
    for (int i = 0; i < cut.n; i++)
        if (strcmp(whole.items[i].text, cut.items[i].text)) abort();
    check_lines(&whole, &look);
    check_lines(&open, &look);
    md_lines_free(&whole);
    md_lines_free(&open);
    md_lines_free(&cut);
    return 0;
}
