/* The event loop: one thread, one epoll instance, everything else is a callback. */

#ifndef NETEXEC_LOOP_H
#define NETEXEC_LOOP_H

#include <stdint.h>

/* The first member of everything that waits for a file descriptor. */
struct source {
    int fd; /* -1 once it is discarded */
    uint32_t events;
    int watched;
    void (*ready)(struct source *source, uint32_t events);
};

/* A timer reports after how many milliseconds it wants to be called again; -1 means never. */
typedef int64_t loop_timer(int64_t now);

void loop_open(void);
void loop_watch(struct source *source, uint32_t events);
/* Stops watching and closes; the caller keeps the memory. */
void loop_close(struct source *source);
/* The same, and frees the memory once no event of the current round can mention it. */
void loop_discard(struct source *source);
/* Milliseconds of the monotonic clock. */
int64_t loop_now(void);
void loop_run(loop_timer *const timers[]) __attribute__((noreturn));

#endif
