/* What the files of the fakegpu command share. */
#ifndef TOOL_H
#define TOOL_H

#include "fg_state.h"

struct options {
    const char *state;
    const char *cards;
    const char *seed;
    const char *root;
    const char *cdi;
    const char *node_root;
    const char *dev;
    const char *libs;
    bool force;
    char *rest[4]; /* positional arguments after the verb */
    int nrest;
};

extern const char usage[];

__attribute__((format(printf, 1, 2))) void say_wrong(const char *format, ...);

/* Says what is wrong on standard error; its value is the exit status. */
#define complain(...) (say_wrong(__VA_ARGS__), 1)

int create_state(const struct options *o, const char *path);
int install_root(const struct options *o);
int write_cdi(const struct options *o, const struct fg *fg);
int make_nodes(const char *dev, const struct fg_state *st);
int open_state(const struct options *o, struct fg *fg, bool want_write);
int open_card(const struct options *o, struct fg *fg, int want, int *card);

/* print.c */
void print_card(struct fg *fg, int card);
void print_busy(struct fg *fg, int card);

/* mig.c */
int run_fail(const struct options *o);
int run_reset(const struct options *o);
int run_mig(const struct options *o);
int run_cut(const struct options *o);

#endif
