/* run_self.h: this program as a child, for what should give its memory back when it ends. */
#ifndef FLASHCHAT_RUN_SELF_H
#define FLASHCHAT_RUN_SELF_H

/* flashchat WORD [SECOND]; waits. Ctrl-C belongs to the child meanwhile. Its exit code, or -1 after
 * a message. second may be NULL. */
int run_self(const char *word, const char *second);
/* The same with any number of words, "flashchat" first, NULL last. */
int run_self_words(char *const words[]);

#endif
