/* fm_error.h: from an err of the lower layers to the fm_error of the public API. The codes
 * correspond one to one and a sentence fits as it is. */
#ifndef ENGINE_FM_ERROR_H
#define ENGINE_FM_ERROR_H

#include <string.h>

#include "base/err.h"
#include "flashmoe.h"

_Static_assert((int)FM_OK == (int)ERR_NONE && (int)FM_ERR_ARG == (int)ERR_ARG &&
                   (int)FM_ERR_NOT_FOUND == (int)ERR_NOT_FOUND && (int)FM_ERR_IO == (int)ERR_IO &&
                   (int)FM_ERR_CORRUPT == (int)ERR_CORRUPT &&
                   (int)FM_ERR_UNSUPPORTED == (int)ERR_UNSUPPORTED &&
                   (int)FM_ERR_RANGE == (int)ERR_RANGE && (int)FM_ERR_BUDGET == (int)ERR_BUDGET &&
                   (int)FM_ERR_NOMEM == (int)ERR_NOMEM && (int)FM_ERR_BUSY == (int)ERR_BUSY &&
                   (int)FM_ERR_CANCELLED == (int)ERR_CANCELLED,
               "fm_code and err_code are the same list");
_Static_assert(sizeof((fm_error *)0)->text >= ERR_TEXT_MAX, "every sentence fits");

static inline fm_error fm_error_from(const err *e) {
    fm_error out;
    out.code = (fm_code)e->code;
    memcpy(out.text, e->text, strlen(e->text) + 1);
    return out;
}

/* return FM_WRAP(call(...)); */
#define FM_WRAP(call)                                                                              \
    __extension__({                                                                                \
        err wrapped_ = (call);                                                                     \
        fm_error_from(&wrapped_);                                                                  \
    })

#endif
