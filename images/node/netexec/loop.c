#include "loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_ROUND 64

static int epoll = -1;
static struct source **discarded;
static size_t discarded_count;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

void loop_open(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("netexec: epoll_create1");
}

void loop_watch(struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (source->watched && source->events == events)
        return;
    if (epoll_ctl(epoll, source->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, source->fd, &event) < 0)
        fail("netexec: epoll_ctl");
    source->watched = 1;
    source->events = events;
}

void loop_close(struct source *source)
{
    if (source->fd < 0)
        return;
    /* Closing alone does not unregister: a child forked a moment ago may still hold a copy. */
    if (source->watched)
        epoll_ctl(epoll, EPOLL_CTL_DEL, source->fd, NULL);
    close(source->fd);
    source->fd = -1;
    source->watched = 0;
}

void loop_discard(struct source *source)
{
    loop_close(source);
    discarded = realloc(discarded, (discarded_count + 1) * sizeof(discarded[0]));
    if (discarded == NULL)
        fail("netexec: realloc");
    discarded[discarded_count++] = source;
}

static void free_discarded(void)
{
    for (size_t i = 0; i < discarded_count; i++)
        free(discarded[i]);
    free(discarded);
    discarded = NULL;
    discarded_count = 0;
}

int64_t loop_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int run_timers(loop_timer *const timers[])
{
    int64_t now = loop_now();
    int64_t soonest = -1;

    for (size_t i = 0; timers[i] != NULL; i++) {
        int64_t wait = timers[i](now);

        if (wait >= 0 && (soonest < 0 || wait < soonest))
            soonest = wait;
    }
    return soonest > 60000 ? 60000 : (int)soonest;
}

void loop_run(loop_timer *const timers[])
{
    struct epoll_event events[EVENTS_PER_ROUND];

    for (;;) {
        int wait = run_timers(timers);
        int count;

        free_discarded();
        count = epoll_wait(epoll, events, EVENTS_PER_ROUND, wait);
        if (count < 0 && errno != EINTR)
            fail("netexec: epoll_wait");
        for (int i = 0; i < count; i++) {
            struct source *source = events[i].data.ptr;

            if (source->fd >= 0)
                source->ready(source, events[i].events);
        }
    }
}
