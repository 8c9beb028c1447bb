/* stop.h: stop strings in text that arrives in pieces.
 *
 *     stop "\n\nUser"     pieces: "fine." "\n" "\nUs" "er: hi"
 *                         shown : "fine."  ""   ""    ""  + matched   (nothing of the stop leaks)
 *
 * Text that may still become a stop string is held back; everything else goes out at once. The
 * first match is the one whose last byte comes first; of several that end on the same byte, the
 * longest. So the result does not depend on where the pieces were cut. Bytes in, bytes out: as stop
 * strings are whole characters, whole characters in give whole characters out.
 *
 * Owner thread only. */
#ifndef TEXT_STOP_H
#define TEXT_STOP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "text/text_buf.h"

#define STOP_STRINGS_MAX 64
#define STOP_LENGTH_MAX  4096

typedef struct stop_matcher stop_matcher;

typedef struct stop_string {
    const char *bytes; /* copied by stop_matcher_open */
    size_t length;     /* 1 .. STOP_LENGTH_MAX */
} stop_string;

/* n 0 .. STOP_STRINGS_MAX (with 0 everything passes). ERR_ARG for an empty or too long string or
 * too many; ERR_NOMEM. */
err stop_matcher_open(const stop_string *stops, int n, stop_matcher **out) MUST_USE;
void stop_matcher_close(stop_matcher *m);
/* Back to the beginning, with the same strings. */
void stop_matcher_reset(stop_matcher *m);

/* Takes the next bytes and appends to `shown` what can be shown now. After a match the rest of this
 * piece and all later ones are ignored. Cost: length x n steps. */
err stop_matcher_push(stop_matcher *m, const char *bytes, size_t length, text_buf *shown) MUST_USE;
/* The text has ended: appends what was held back (nothing after a match). */
err stop_matcher_end(stop_matcher *m, text_buf *shown) MUST_USE;

/* Which stop string matched: its index, -1 while none has. */
int stop_matcher_found(const stop_matcher *m);

#endif
