/* config_wizard.h: `flashchat config` step by step. */
#ifndef CONFIG_WIZARD_H
#define CONFIG_WIZARD_H

#include "config.h"

/* Menus over the table: choose, see what a choice costs here, preview, save, undo. Works with
 * single keys on a terminal and with lines in a pipe; the end of the input leaves without saving.
 * Returns the exit code. */
int config_wizard(settings *c);

#endif
