/* stream.c: the incremental detokeniser of tokenizer.h.
 *
 * Tokens are bytes, and a character may be spread over several of them. What arrives is cut into
 * characters; the beginning of one that is not complete yet waits in `held` (at most 3 bytes).
 * Bytes that cannot become a character turn into U+FFFD, one for each longest piece that began like
 * one, as browsers do it. */
#include <string.h>

#include "text/tokenizer.h"
#include "text/unicode.h"

static const char REPLACEMENT[3] = "\xef\xbf\xbd";

/* How many of bytes[0 .. length), none of which begin with a whole character, could still be the
 * beginning of one: length when more bytes may complete it, else the bytes to replace (at least 1).
 */
static size_t begins_like(const unsigned char *bytes, size_t length, bool *may_grow) {
    unsigned char lead = bytes[0];
    *may_grow = false;
    if (lead < 0xc2 || lead > 0xf4) return 1;
    size_t needs = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    size_t n = 1;
    while (n < length && n < needs && bytes[n] >= low && bytes[n] <= high) {
        low = 0x80;
        high = 0xbf;
        n++;
    }
    *may_grow = n == length && n < needs;
    return n;
}

/* Moves held[0 .. n_held), which now holds a whole character or can never become one, to out. */
static size_t settle_held(utf8_stream *s, char *out) {
    size_t made = 0;
    while (s->n_held > 0) {
        uint32_t c;
        bool may_grow = false;
        size_t used = (size_t)utf8_decode((const char *)s->held, (size_t)s->n_held, &c);
        if (used > 0) {
            memcpy(out + made, s->held, used);
            made += used;
        } else {
            used = begins_like(s->held, (size_t)s->n_held, &may_grow);
            if (may_grow) return made;
            memcpy(out + made, REPLACEMENT, sizeof REPLACEMENT);
            made += sizeof REPLACEMENT;
        }
        s->n_held -= (int)used;
        memmove(s->held, s->held + used, (size_t)s->n_held);
    }
    return made;
}

size_t utf8_stream_push(utf8_stream *s, const char *bytes, size_t length, char *out) {
    size_t made = 0, at = 0;
    while (at < length) {
        if (s->n_held == 0) {
            size_t whole = utf8_valid_prefix(bytes + at, length - at);
            memcpy(out + made, bytes + at, whole);
            made += whole;
            at += whole;
            if (at == length) break;
        }
        s->held[s->n_held++] = (unsigned char)bytes[at++];
        made += settle_held(s, out + made);
    }
    return made;
}

size_t utf8_stream_end(utf8_stream *s, char *out) {
    if (s->n_held == 0) return 0;
    s->n_held = 0;
    memcpy(out, REPLACEMENT, sizeof REPLACEMENT);
    return sizeof REPLACEMENT;
}
