/* Taking versions of the library off a node, but none that a process or a container still needs. */
#ifndef HAMI_REMOVE_H
#define HAMI_REMOVE_H

/* Removes a version's folder and what we put into it; nothing else is ever removed. */
void remove_version(int to, const char *version);

/* Removes `current` and every version that no process under `proc` has mapped and no container is
   about to mount. Says on stdout what stays and why. How many stay, or -1 with a complaint on
   stderr. */
int remove_unused(int to, const char *proc);

#endif
