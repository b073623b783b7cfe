/* Which processes have a card open through NVML: each holds a shared record lock on a byte of it.
 */
#define _GNU_SOURCE
#include "fg_state.h"

#include <fcntl.h>
#include <unistd.h>

#define CLIENT_BASE (1ll << 41) /* beyond the slots' bytes */

static struct flock client_byte(int card, short type) {
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = CLIENT_BASE + card, .l_len = 1};
}

void fg_client_enter(const struct fg *fg, int card) {
    struct flock range = client_byte(card, F_RDLCK);
    fcntl(fg->fd, F_SETLK, &range);
}

void fg_client_leave(const struct fg *fg, int card) {
    struct flock range = client_byte(card, F_UNLCK);
    fcntl(fg->fd, F_SETLK, &range);
}

/* Whether a process other than this one has the card open. */
bool fg_client_other(const struct fg *fg, int card) {
    struct flock range = client_byte(card, F_WRLCK);
    return fcntl(fg->fd, F_GETLK, &range) == 0 && range.l_type != F_UNLCK;
}
