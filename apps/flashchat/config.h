/* config.h: the settings in force, and where each comes from.
 *
 *     flag  >  FLASHCHAT_* in the environment  >  file  >  the model's registry entry  >  built in
 *
 *     settings *c;
 *     err e = settings_open_args(&argc, argv, &c);     takes --config and every setting's flag out
 *     if (settings_problems(c)) ...                    lines of the file that make no sense
 *     settings_int(c, CONFIG_MAX_TOKENS)
 *
 * The file is read, never executed: lines KEY="value" and # comments. What it says wrongly is kept
 * as problems with their line numbers, because `flashchat config` must still open such a file;
 * every other command stops at them. One thread. */
#ifndef APP_CONFIG_H
#define APP_CONFIG_H

#include "config_table.h"

typedef enum config_origin {
    ORIGIN_DEFAULT,
    ORIGIN_REGISTRY, /* the model's entry and its sampling profile */
    ORIGIN_FILE,
    ORIGIN_ENVIRONMENT,
    ORIGIN_FLAG,
    ORIGIN_COUNT
} config_origin;

typedef struct settings settings;

/* Reads the settings. `file` NULL means the usual one, which may be missing; a file that was named
 * must be there. */
err settings_open(const char *file, settings **out) MUST_USE;
/* The same, with --config FILE and the flags of the table taken out of argv (argv[0] stays; nothing
 * after "--" is touched). *argc is what is left. Forms: --key value, --key=value, and for on/off
 * settings --key and --no-key. */
err settings_open_args(int *argc, char **argv, settings **out) MUST_USE;
/* The flags alone, of the rows that `takes` accepts (NULL: all). */
err settings_take_flags(settings *c, int *argc, char **argv,
                        bool (*takes)(const void *ctx, config_id id), const void *ctx) MUST_USE;
void settings_close(settings *c);

/* The value in force; never NULL, always one that its row accepts. Owned by c until it changes. */
const char *settings_text(const settings *c, config_id id);
config_origin settings_origin_of(const settings *c, config_id id);
/* "flag --memory", "FLASHCHAT_MEMORY", "line 12 of FILE", "model ember", "built in". */
void settings_origin_text(const settings *c, config_id id, char *out, size_t size);
/* What one layer says, or NULL. */
const char *settings_layer(const settings *c, config_origin origin, config_id id);
bool settings_is_auto(const settings *c, config_id id);
/* Typed reads; 0 for auto. Paths come with ~ expanded. */
int64_t settings_int(const settings *c, config_id id);
double settings_number(const settings *c, config_id id);
bool settings_bool(const settings *c, config_id id);
uint64_t settings_size(const settings *c, config_id id);
err settings_path(const settings *c, config_id id, char *out) MUST_USE; /* out[PATH_TEXT_MAX] */

/* One layer's value; NULL takes it away. ERR_ARG when the row does not accept it. */
err settings_put(settings *c, config_origin origin, config_id id, const char *text) MUST_USE;
void settings_registry_name(settings *c, const char *name); /* for settings_origin_text */

/* Lines of the file and variables that make no sense, each naming its line. */
int settings_problems(const settings *c);
const char *settings_problem(const settings *c, int i);
/* Some of them stop every command but `config`; a variable with an unknown name does not. */
bool settings_blocked(const settings *c);

/* ~/.config/flashchat (or $XDG_CONFIG_HOME/flashchat), and the file in use. Owned by c. */
const char *settings_dir(const settings *c);
const char *settings_file(const settings *c);

/* ---- changing the file (settings_file.c) ---- */

typedef struct settings_change {
    config_id id;
    const char *value; /* NULL: the line goes */
} settings_change;

/* Changes only the lines of these settings; comments, order and other lines stay. The version
 * before is kept as FILE.previous for settings_undo. Atomic; mode 0600. */
err settings_save(const char *file, const settings_change *changes, int n) MUST_USE;
/* Brings FILE.previous back (and keeps the present one in its place). */
err settings_undo(const char *file) MUST_USE;
/* An empty file in its place, kept and undone in the same way: also lines that make no sense go. */
err settings_clear(const char *file) MUST_USE;
/* The file as it would be after the changes: *out is the caller's (free). */
err settings_preview(const char *file, const settings_change *changes, int n, char **out) MUST_USE;

#define SETTINGS_FILE_MAX (256 * 1024)
#define SETTINGS_LINE_MAX 4096

/* One line of the file, without its newline. *key is empty for a blank line or comment. The buffers
 * hold SETTINGS_LINE_MAX bytes. The error says what is wrong, without the line number. */
err settings_parse_line(const char *line, size_t length, char *key, char *value) MUST_USE;
/* KEY="value" with quotes and backslashes escaped. */
void settings_format_line(char *out, size_t size, const char *key, const char *value);

#endif
