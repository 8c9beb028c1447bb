/* config_table.c: the rows, and what their kinds accept. */
#include "config_table.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"

const char *const config_group_names[GROUP_COUNT] = {"Model", "Memory and speed", "Answers",
                                                     "Server", "Screen"};

const config_row config_rows[CONFIG_COUNT] = {
    [CONFIG_MODEL] = {.name = "MODEL",
                      .group = GROUP_MODEL,
                      .kind = KIND_TEXT,
                      .fallback = "ember",
                      .flag = "--model",
                      .title = "Model",
                      .meaning = "Which model answers: a name from `flashchat models`, or the "
                                 "folder of a checkpoint.",
                      .affects = "everything: knowledge, memory, disk and speed",
                      .marks = CONFIG_RESTART},
    [CONFIG_HUGGINGFACE_CACHE_DIR] =
        {.name = "HUGGINGFACE_CACHE_DIR",
         .group = GROUP_MODEL,
         .kind = KIND_PATH,
         .fallback = "",
         .flag = "--cache-dir",
         .title = "Model folder",
         .meaning = "Where downloaded models are kept, in the layout of the Hugging Face cache. "
                    "Empty: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub.",
         .affects = "disk space on that drive; a fast drive gives fast answers",
         .marks = CONFIG_RESTART},
    [CONFIG_OFFLOAD_DIR] = {.name = "OFFLOAD_DIR",
                            .group = GROUP_MODEL,
                            .kind = KIND_PATH,
                            .fallback = "",
                            .flag = "--offload-dir",
                            .title = "Archive folder",
                            .meaning = "Where `flashchat offload` puts models that you do not need "
                                       "now: a big slow drive. Empty: archiving is off.",
                            .affects = "disk space only"},
    [CONFIG_MEMORY] =
        {.name = "MEMORY",
         .group = GROUP_SPEED,
         .kind = KIND_SIZE,
         .low = 16.0 * 1024 * 1024,
         .high = 64.0 * 1024 * 1024 * 1024 * 1024,
         .fallback = "auto",
         .flag = "--memory",
         .title = "Memory ceiling",
         .meaning = "The most memory that flashchat takes, for example 12G. auto: three quarters "
                    "of what this machine has.",
         .affects = "speed: more memory keeps more of the model at hand; too little is refused "
                    "with the numbers",
         .marks = CONFIG_AUTO | CONFIG_RESTART},
    [CONFIG_CONTEXT_WINDOW] =
        {.name = "CONTEXT_WINDOW",
         .group = GROUP_SPEED,
         .kind = KIND_INT,
         .low = 256,
         .high = 16777216,
         .fallback = "auto",
         .flag = "--context",
         .title = "Context window",
         .meaning = "How much of a conversation the model can see at once, in tokens (a token is "
                    "about four letters). auto: the model's own, at most 32768.",
         .affects = "memory: each token of it is kept for every attention layer",
         .marks = CONFIG_AUTO | CONFIG_RESTART},
    [CONFIG_KV_QUANT] = {.name = "KV_QUANT",
                         .group = GROUP_SPEED,
                         .kind = KIND_CHOICE,
                         .choices = "auto|f32|f16|q8",
                         .fallback = "auto",
                         .flag = "--kv",
                         .title = "Precision of the conversation memory",
                         .meaning = "How the seen part of the conversation is stored: f32 is "
                                    "exact, f16 takes half the memory and q8 (8 bits and a "
                                    "scale for each 32 numbers) a little more than a quarter, "
                                    "at a small cost in quality. auto: f16, f32 with EXACT.",
                         .affects = "memory of a long context window",
                         .marks = CONFIG_RESTART},
    [CONFIG_THREADS] = {.name = "THREADS",
                        .group = GROUP_SPEED,
                        .kind = KIND_INT,
                        .low = 1,
                        .high = 256,
                        .fallback = "auto",
                        .flag = "--threads",
                        .title = "Processor threads",
                        .meaning = "How many processor cores work on an answer. auto: all that "
                                   "this program may use. The answer does not depend on it.",
                        .affects = "speed, and how much is left for other programs",
                        .marks = CONFIG_AUTO | CONFIG_RESTART},
    [CONFIG_ACTIVE_EXPERTS] =
        {.name = "ACTIVE_EXPERTS",
         .group = GROUP_SPEED,
         .kind = KIND_INT,
         .low = 1,
         .high = 1024,
         .fallback = "auto",
         .flag = "--experts",
         .title = "Experts per token",
         .meaning = "How many experts of the model take part in each token. auto: as it was "
                    "trained. Fewer is faster and makes answers worse; more is refused.",
         .affects = "speed against quality; tool calls suffer first",
         .marks = CONFIG_AUTO | CONFIG_RESTART},
    [CONFIG_EXACT] = {.name = "EXACT",
                      .group = GROUP_SPEED,
                      .kind = KIND_BOOL,
                      .fallback = "off",
                      .flag = "--exact",
                      .title = "Exact arithmetic",
                      .meaning = "Compute with full 32-bit activations everywhere: the definition "
                                 "of the right answer, for comparisons.",
                      .affects = "speed: slower",
                      .marks = CONFIG_RESTART},
    [CONFIG_CPU] = {.name = "CPU",
                    .group = GROUP_SPEED,
                    .kind = KIND_CHOICE,
                    .choices = "auto|scalar|avx2|avx512|neon",
                    .fallback = "auto",
                    .flag = "--cpu",
                    .title = "Processor instructions",
                    .meaning = "Which instruction set is used. auto: the best that this processor "
                               "has.",
                    .affects = "speed",
                    .marks = CONFIG_RESTART},
    [CONFIG_MIRROR_DIR] =
        {.name = "MIRROR_DIR",
         .group = GROUP_SPEED,
         .kind = KIND_PATH,
         .fallback = "",
         .flag = "--mirror",
         .title = "Second copy of the model",
         .meaning = "A folder on another drive with the same model files: both drives are then "
                    "read at once. Empty: one drive.",
         .affects = "speed of models that are larger than memory",
         .marks = CONFIG_RESTART},
    [CONFIG_LOOK_AHEAD] =
        {.name = "LOOK_AHEAD",
         .group = GROUP_SPEED,
         .kind = KIND_BOOL,
         .fallback = "on",
         .flag = "--look-ahead",
         .title = "Looking ahead",
         .meaning = "While the drive is idle, read what the next layer will probably want. It "
                    "never changes an answer.",
         .affects = "speed of models that are larger than memory",
         .marks = CONFIG_RESTART},
    [CONFIG_MAX_TOKENS] = {.name = "MAX_TOKENS",
                           .group = GROUP_ANSWERS,
                           .kind = KIND_INT,
                           .low = 1,
                           .high = 16777216,
                           .fallback = "4096",
                           .flag = "--max-tokens",
                           .title = "Longest answer",
                           .meaning = "After so many tokens an answer is cut, thinking included. "
                                      "It also ends where the context window is full.",
                           .affects = "how long an answer can take"},
    [CONFIG_SAMPLING_PROFILE] =
        {.name = "SAMPLING_PROFILE",
         .group = GROUP_ANSWERS,
         .kind = KIND_TEXT,
         .fallback = "auto",
         .flag = "--profile",
         .title = "Answer style",
         .meaning = "A set of the values below as the model's makers recommend them: "
                    "thinking-general, thinking-coding or instruct. auto: the model's usual one. "
                    "custom: only what you set yourself. A value that you set always wins over "
                    "its profile.",
         .affects = "wording, thinking, and how much time an answer takes",
         .marks = CONFIG_AUTO},
    [CONFIG_REASONING] = {.name = "REASONING",
                          .group = GROUP_ANSWERS,
                          .kind = KIND_CHOICE,
                          .choices = "auto|on|off",
                          .fallback = "auto",
                          .flag = "--reasoning",
                          .title = "Thinking",
                          .meaning = "Whether the model thinks before it answers, where it can. "
                                     "auto: as the answer style says.",
                          .affects = "better answers to hard questions, and much more time"},
    [CONFIG_TEMPERATURE] = {.name = "TEMPERATURE",
                            .group = GROUP_ANSWERS,
                            .kind = KIND_NUMBER,
                            .low = 0,
                            .high = 2,
                            .fallback = "0",
                            .flag = "--temperature",
                            .title = "Temperature",
                            .meaning = "How freely words are chosen. 0: always the likeliest one, "
                                       "the same answer every time. 1: as the model learned it.",
                            .affects = "variety of the answers"},
    [CONFIG_TOP_P] = {.name = "TOP_P",
                      .group = GROUP_ANSWERS,
                      .kind = KIND_NUMBER,
                      .low = 0.001,
                      .high = 1,
                      .fallback = "1",
                      .flag = "--top-p",
                      .title = "Top-p",
                      .meaning = "Choose among the likeliest words that together have this share "
                                 "of the probability. 1: off.",
                      .affects = "variety of the answers"},
    [CONFIG_TOP_K] = {.name = "TOP_K",
                      .group = GROUP_ANSWERS,
                      .kind = KIND_INT,
                      .low = 0,
                      .high = 1000000,
                      .fallback = "0",
                      .flag = "--top-k",
                      .title = "Top-k",
                      .meaning = "Choose among this many of the likeliest words. 0: off.",
                      .affects = "variety of the answers"},
    [CONFIG_MIN_P] = {.name = "MIN_P",
                      .group = GROUP_ANSWERS,
                      .kind = KIND_NUMBER,
                      .low = 0,
                      .high = 1,
                      .fallback = "0",
                      .flag = "--min-p",
                      .title = "Min-p",
                      .meaning = "Leave out words that are less likely than this share of the "
                                 "likeliest one. 0: off.",
                      .affects = "variety of the answers"},
    [CONFIG_PRESENCE_PENALTY] = {.name = "PRESENCE_PENALTY",
                                 .group = GROUP_ANSWERS,
                                 .kind = KIND_NUMBER,
                                 .low = -2,
                                 .high = 2,
                                 .fallback = "0",
                                 .flag = "--presence-penalty",
                                 .title = "Presence penalty",
                                 .meaning = "Pushes the answer away from words that it has used "
                                            "already. 0: off.",
                                 .affects = "less going round in circles; too much mixes "
                                            "languages"},
    [CONFIG_FREQUENCY_PENALTY] = {.name = "FREQUENCY_PENALTY",
                                  .group = GROUP_ANSWERS,
                                  .kind = KIND_NUMBER,
                                  .low = -2,
                                  .high = 2,
                                  .fallback = "0",
                                  .flag = "--frequency-penalty",
                                  .title = "Frequency penalty",
                                  .meaning = "The same, stronger the more often a word was used. "
                                             "0: off.",
                                  .affects = "less repetition"},
    [CONFIG_REPETITION_PENALTY] = {.name = "REPETITION_PENALTY",
                                   .group = GROUP_ANSWERS,
                                   .kind = KIND_NUMBER,
                                   .low = 0.01,
                                   .high = 10,
                                   .fallback = "1",
                                   .flag = "--repetition-penalty",
                                   .title = "Repetition penalty",
                                   .meaning = "Divides the odds of words that were used already. "
                                              "1: off.",
                                   .affects = "less repetition; much of it harms code"},
    [CONFIG_SEED] = {.name = "SEED",
                     .group = GROUP_ANSWERS,
                     .kind = KIND_INT,
                     .low = 0,
                     .high = 9007199254740992.0,
                     .fallback = "auto",
                     .flag = "--seed",
                     .title = "Seed of the dice",
                     .meaning = "The same seed gives the same answer to the same question. auto: "
                                "a new one each time.",
                     .affects = "repeatability",
                     .marks = CONFIG_AUTO},
    [CONFIG_SYSTEM_PROMPT_FILE] =
        {.name = "SYSTEM_PROMPT_FILE",
         .group = GROUP_ANSWERS,
         .kind = KIND_PATH,
         .fallback = "",
         .flag = "--system-file",
         .title = "Standing instructions",
         .meaning = "A text file that every conversation begins with. Empty: system.md in the "
                    "configuration folder, if there is one.",
         .affects = "how the model behaves"},
    [CONFIG_SERVER_HOST] = {.name = "SERVER_HOST",
                            .group = GROUP_SERVER,
                            .kind = KIND_TEXT,
                            .fallback = "127.0.0.1",
                            .flag = "--host",
                            .title = "Server address",
                            .meaning = "Where the server listens. 127.0.0.1: this machine only. "
                                       "Any other address opens it to the network: set "
                                       "API_KEY_FILE as well.",
                            .affects = "who can use your model",
                            .marks = CONFIG_RESTART},
    [CONFIG_SERVER_PORT] = {.name = "SERVER_PORT",
                            .group = GROUP_SERVER,
                            .kind = KIND_INT,
                            .low = 1,
                            .high = 65535,
                            .fallback = "8000",
                            .flag = "--port",
                            .title = "Server port",
                            .meaning = "The port of the server: http://127.0.0.1:8000.",
                            .affects = "the address that other programs use",
                            .marks = CONFIG_RESTART},
    [CONFIG_SERVER_PARALLEL] = {.name = "SERVER_PARALLEL",
                                .group = GROUP_SERVER,
                                .kind = KIND_INT,
                                .low = 1,
                                .high = 64,
                                .fallback = "4",
                                .flag = "--sessions",
                                .title = "Answers at once",
                                .meaning = "How many conversations the server answers at the same "
                                           "time; others wait in a queue.",
                                .affects = "memory: a context window for each",
                                .marks = CONFIG_RESTART},
    [CONFIG_SERVER_LOG_PATH] = {.name = "SERVER_LOG_PATH",
                                .group = GROUP_SERVER,
                                .kind = KIND_PATH,
                                .fallback = "",
                                .flag = "--log",
                                .title = "Server log",
                                .meaning = "The file that the server writes its log to. Empty: "
                                           "logs/server.log in the configuration folder.",
                                .affects = "disk space",
                                .marks = CONFIG_RESTART},
    [CONFIG_SERVER_DEBUG] = {.name = "SERVER_DEBUG",
                             .group = GROUP_SERVER,
                             .kind = KIND_BOOL,
                             .fallback = "off",
                             .flag = "--debug",
                             .title = "Detailed server log",
                             .meaning = "Write down what the engine does for each request.",
                             .affects = "size of the log",
                             .marks = CONFIG_RESTART},
    [CONFIG_SERVER_HTTP_LOG] = {.name = "SERVER_HTTP_LOG",
                                .group = GROUP_SERVER,
                                .kind = KIND_BOOL,
                                .fallback = "off",
                                .flag = "--http-log",
                                .title = "Log every request",
                                .meaning = "One line in the log for each HTTP request.",
                                .affects = "size of the log",
                                .marks = CONFIG_RESTART},
    [CONFIG_API_KEY_FILE] = {.name = "API_KEY_FILE",
                             .group = GROUP_SERVER,
                             .kind = KIND_PATH,
                             .fallback = "",
                             .flag = "--api-key-file",
                             .title = "Key of the server",
                             .meaning = "A file with the key that programs must show to use the "
                                        "server. Empty: no key is asked for.",
                             .affects = "who can use your model",
                             .marks = CONFIG_RESTART},
    [CONFIG_SYSTEM_PROMPT_CACHE] =
        {.name = "SYSTEM_PROMPT_CACHE",
         .group = GROUP_SERVER,
         .kind = KIND_BOOL,
         .fallback = "on",
         .flag = "--prompt-cache",
         .title = "Remember beginnings",
         .meaning = "Keep the state after long beginnings that many requests share (the system "
                    "prompt, the tools) on disk, so that they are not read again.",
         .affects = "time to the first word; disk space beside the model",
         .marks = CONFIG_RESTART},
    [CONFIG_SYSTEM_PROMPT_CACHE_MAX_ENTRIES] =
        {.name = "SYSTEM_PROMPT_CACHE_MAX_ENTRIES",
         .group = GROUP_SERVER,
         .kind = KIND_INT,
         .low = 1,
         .high = 10000,
         .fallback = "16",
         .flag = "--prompt-cache-entries",
         .title = "Remembered beginnings",
         .meaning = "How many of them are kept; the longest unused one goes first.",
         .affects = "disk space beside the model",
         .marks = CONFIG_RESTART},
    [CONFIG_SYSTEM_PROMPT_CACHE_MAX_SIZE] =
        {.name = "SYSTEM_PROMPT_CACHE_MAX_SIZE",
         .group = GROUP_SERVER,
         .kind = KIND_SIZE,
         .low = 1024.0 * 1024,
         .high = 64.0 * 1024 * 1024 * 1024 * 1024,
         .fallback = "4G",
         .flag = "--prompt-cache-size",
         .title = "Size of remembered beginnings",
         .meaning = "How much disk they may take together; the longest unused one goes first.",
         .affects = "disk space beside the model",
         .marks = CONFIG_RESTART},
    [CONFIG_SHOW_THINKING] = {.name = "SHOW_THINKING",
                              .group = GROUP_SCREEN,
                              .kind = KIND_CHOICE,
                              .choices = "dim|fold|hide",
                              .fallback = "dim",
                              .flag = "--thinking",
                              .title = "Show thinking",
                              .meaning = "What the chat shows of the model's thinking. dim: all of "
                                         "it, in grey. fold: one line that counts. hide: nothing.",
                              .affects = "the screen only"},
    [CONFIG_COLOR_OUTPUT] = {.name = "COLOR_OUTPUT",
                             .group = GROUP_SCREEN,
                             .kind = KIND_CHOICE,
                             .choices = "auto|on|off",
                             .fallback = "auto",
                             .flag = "--color",
                             .title = "Colours",
                             .meaning = "auto: colours on a terminal, unless NO_COLOR is set.",
                             .affects = "the screen only"},
};

/* ---- values ---- */

bool value_int(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    *out = v;
    return end != text && *end == '\0' && errno == 0 && text[0] != ' ' && text[0] != '+';
}

bool value_number(const char *text, double *out) {
    char *end;
    *out = 0;
    for (const char *p = text; *p; p++)
        if (!strchr("0123456789.-eE+", *p)) return false; /* no hexadecimal, no "nan", no blanks */
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v)) return false;
    *out = v;
    return true;
}

bool value_bool(const char *text, bool *out) {
    static const char *const yes[] = {"on", "1", "true", "yes"};
    static const char *const no[] = {"off", "0", "false", "no"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (!strcasecmp(text, yes[i])) return *out = true, true;
        if (!strcasecmp(text, no[i])) return *out = false, true;
    }
    return false;
}

bool value_size(const char *text, uint64_t *out) {
    static const char units[] = "KMGT";
    char *end;
    *out = 0;
    if (text[0] < '0' || text[0] > '9') return false;
    for (const char *p = text; *p && !strchr("KMGTkmgtBb", *p); p++)
        if (!strchr("0123456789.", *p)) return false;
    double v = strtod(text, &end);
    if (*end) {
        char upper = (char)(*end >= 'a' ? *end - 32 : *end);
        const char *unit = strchr(units, upper);
        if (unit) {
            for (const char *u = units; u <= unit; u++) v *= 1024;
            end++;
            if (*end == 'i') end++;
        }
        if (*end == 'B' || *end == 'b') end++;
    }
    if (*end || !(v >= 0) || v > 9e15) return false;
    *out = (uint64_t)v;
    return true;
}

/* ---- rows ---- */

int config_find(const char *name) {
    for (int i = 0; i < CONFIG_COUNT; i++) {
        const char *a = config_rows[i].name, *b = name;
        while (*a && *b &&
               (*a == *b || (*b >= 'a' && *b <= 'z' && *a == *b - 32) || (*a == '_' && *b == '-')))
            a++, b++;
        if (!*a && !*b) return i;
    }
    return -1;
}

#define NAME_MAX_LENGTH 63

/* Edit distance of two names, any case. */
static int distance(const char *a, const char *b) {
    int row[NAME_MAX_LENGTH + 2];
    int n = (int)strlen(b);
    if (n > NAME_MAX_LENGTH || strlen(a) > NAME_MAX_LENGTH) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = diagonal + (strncasecmp(&a[i - 1], &b[j - 1], 1) != 0);
            diagonal = row[j];
            row[j] = int_min(change, 1 + int_min(row[j], row[j - 1]));
        }
    }
    return row[n];
}

const char *config_nearest(const char *name) {
    const char *best = NULL;
    int nearest = 1 + int_max(2, (int)strlen(name) / 3);
    for (int i = 0; i < CONFIG_COUNT; i++) {
        int d = distance(name, config_rows[i].name);
        if (d < nearest) nearest = d, best = config_rows[i].name;
    }
    return best;
}

void config_accepts(const config_row *row, char *out, size_t size) {
    char core[200] = "";
    switch (row->kind) {
    case KIND_TEXT: snprintf(core, sizeof core, "text"); break;
    case KIND_PATH: snprintf(core, sizeof core, "a path"); break;
    case KIND_INT:
        snprintf(core, sizeof core, "a whole number from %.0f to %.0f", row->low, row->high);
        break;
    case KIND_NUMBER:
        snprintf(core, sizeof core, "a number from %g to %g", row->low, row->high);
        break;
    case KIND_BOOL: snprintf(core, sizeof core, "on or off"); break;
    case KIND_SIZE:
        snprintf(core, sizeof core, "a size such as 12G or 900M, at least %.0fM",
                 row->low / 1048576);
        break;
    case KIND_CHOICE: {
        size_t n = 0;
        for (const char *p = row->choices; *p && n + 8 < sizeof core; p++) {
            if (*p != '|')
                core[n++] = *p;
            else
                n += (size_t)snprintf(core + n, sizeof core - n, "%s",
                                      strchr(p + 1, '|') ? ", " : " or ");
        }
        core[n] = '\0';
        break;
    }
    }
    bool more = (row->marks & CONFIG_AUTO) && row->kind != KIND_TEXT;
    snprintf(out, size, "%s%s", core, more ? ", or auto" : "");
}

static bool is_choice(const char *choices, const char *text) {
    size_t length = strlen(text);
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (n == length && !strncmp(p, text, n)) return true;
        p += n + (p[n] == '|');
    }
    return false;
}

static bool accepted(const config_row *row, const char *text) {
    int64_t whole;
    double number = 0;
    uint64_t size;
    bool truth;
    switch (row->kind) {
    case KIND_TEXT: return text[0] != '\0';
    case KIND_PATH: return true;
    case KIND_BOOL: return value_bool(text, &truth);
    case KIND_CHOICE: return is_choice(row->choices, text);
    case KIND_INT:
        if (!value_int(text, &whole)) return false;
        number = (double)whole;
        break;
    case KIND_NUMBER:
        if (!value_number(text, &number)) return false;
        break;
    case KIND_SIZE:
        if (!value_size(text, &size)) return false;
        number = (double)size;
        break;
    }
    return number >= row->low && number <= row->high;
}

err config_check(const config_row *row, const char *text) {
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 32)
            return err_make(ERR_ARG, "%s: a value has one line and no control characters",
                            row->name);
    if ((row->marks & CONFIG_AUTO) && !strcmp(text, "auto")) return err_none();
    if (accepted(row, text)) return err_none();
    char accepts[256];
    config_accepts(row, accepts, sizeof accepts);
    return err_make(ERR_ARG, "%s: \"%.80s\" is not %s", row->name, text, accepts);
}
