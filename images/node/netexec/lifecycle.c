/* Signals, and every way to end: SIGTERM with --delay-shutdown, SIGINT, /exit. As PID 1 it also
 * reaps what is orphaned. */

#include "netexec.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long requests in progress may take after SIGTERM; agnhost itself cuts them off at once. */
#define TERMINATION_GRACE 1000
/* Enough for thousands of connections. */
#define WANTED_DESCRIPTORS 16384

/* An /exit that still waits. */
struct pending_exit {
    struct pending_exit *next;
    struct connection *connection; /* NULL once the client is gone: the exit happens anyway */
    int64_t at;
    int64_t timeout;
    int code;
};

static struct source signals = {.fd = -1};
static struct rlimit original_limit;
static struct pending_exit *pending_exits;
static int64_t terminate_at = -1;
static bool draining;
static int drain_code;
static int64_t drain_deadline;

static void reap_children(void)
{
    pid_t pid;
    int status;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        jobs_child_ended(pid, status);
}

static void terminate(void)
{
    if (terminate_at >= 0)
        return;
    if (options.delay_shutdown > 0)
        log_line("Sleeping %d seconds before terminating...", options.delay_shutdown);
    terminate_at = loop_now() + options.delay_shutdown * INT64_C(1000);
}

static void signals_ready(struct source *source, uint32_t events)
{
    struct signalfd_siginfo info;

    (void)events;
    while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap_children();
        else if (info.ssi_signo == SIGTERM)
            terminate();
        else
            terminate_at = loop_now();
    }
}

void lifecycle_open(void)
{
    struct rlimit limit;
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals.fd < 0)
        die("signalfd: %s", errno_text(errno));
    signals.ready = signals_ready;
    loop_watch(&signals, EPOLLIN);

    getrlimit(RLIMIT_NOFILE, &original_limit);
    limit = original_limit;
    if (limit.rlim_cur < WANTED_DESCRIPTORS)
        limit.rlim_cur = limit.rlim_max < WANTED_DESCRIPTORS ? limit.rlim_max : WANTED_DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void lifecycle_release_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setrlimit(RLIMIT_NOFILE, &original_limit);
}

bool lifecycle_terminating(void)
{
    return terminate_at >= 0;
}

void lifecycle_drain(int code, int64_t timeout)
{
    int64_t deadline = loop_now() + timeout;

    drain_deadline = draining && drain_deadline < deadline ? drain_deadline : deadline;
    draining = true;
    drain_code = code;
    http_stop_listening();
}

static void abandon(void *owner)
{
    ((struct pending_exit *)owner)->connection = NULL;
}

static void carry_out(struct pending_exit *pending)
{
    if (pending->timeout == 0)
        exit(pending->code);
    lifecycle_drain(pending->code, pending->timeout > 0 ? pending->timeout : 0);
    if (pending->connection != NULL) {
        respond_text(pending->connection, 200, NO_SPAN);
        connection_resume(pending->connection);
    }
}

/* Carries out what is due and returns how long the next takes. */
static int64_t run_pending_exits(int64_t now)
{
    struct pending_exit **link = &pending_exits;
    int64_t soonest = -1;

    while (*link != NULL) {
        struct pending_exit *pending = *link;

        if (pending->at <= now) {
            *link = pending->next;
            carry_out(pending);
            free(pending);
            continue;
        }
        if (soonest < 0 || pending->at - now < soonest)
            soonest = pending->at - now;
        link = &pending->next;
    }
    return soonest;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

int64_t lifecycle_timer(int64_t now)
{
    int64_t soonest = run_pending_exits(now);

    if (terminate_at >= 0 && terminate_at <= now && !(draining && drain_code == 0))
        lifecycle_drain(0, TERMINATION_GRACE);
    else if (terminate_at > now)
        soonest = sooner(soonest, terminate_at - now);
    if (!draining)
        return soonest;
    if (http_connection_count() == 0 || drain_deadline <= now) {
        log_line("Graceful shutdown completed with: %s",
                 http_connection_count() == 0 ? "<nil>" : "context deadline exceeded");
        exit(drain_code);
    }
    return sooner(soonest, drain_deadline - now);
}

/* Reads a duration in milliseconds, rounded up; on nonsense answers as agnhost does. */
static bool read_duration(struct connection *connection, struct request *request, const char *name,
                          int64_t *milliseconds)
{
    struct span text = request_form(request, name);
    struct buffer answer = {0};
    int64_t nanoseconds = 0;

    if (text.len == 0 || parse_duration(text, &nanoseconds)) {
        *milliseconds = nanoseconds / 1000000 + (nanoseconds % 1000000 > 0);
        if (nanoseconds < 0 && *milliseconds == 0)
            *milliseconds = -1;
        return true;
    }
    buffer_printf(&answer, "argument '%s' must be a valid golang duration or empty, got ", name);
    go_quote(&answer, text);
    buffer_text(&answer, "\n");
    respond_text(connection, 200, span_of_buffer(&answer));
    buffer_free(&answer);
    return false;
}

static bool read_code(struct connection *connection, struct request *request, long *code)
{
    struct span text = request_form(request, "code");
    struct buffer answer = {0};

    *code = 0;
    if (text.len == 0 || parse_integer(text, code) == NULL)
        return true;
    buffer_text(&answer, "argument 'code' must be an integer [0-127] or empty, got ");
    go_quote(&answer, text);
    buffer_text(&answer, "\n");
    respond_text(connection, 200, span_of_buffer(&answer));
    buffer_free(&answer);
    return false;
}

void exit_endpoint(struct connection *connection, struct request *request)
{
    struct span wait_text = request_form(request, "wait");
    struct span timeout_text = request_form(request, "timeout");
    struct pending_exit *pending;
    int64_t timeout;
    int64_t wait;
    long code;

    log_line("GET /exit?code=%.*s&timeout=%.*s&wait=%.*s", SPAN_ARGS(request_form(request, "code")),
             SPAN_ARGS(timeout_text), SPAN_ARGS(wait_text));
    if (!read_duration(connection, request, "timeout", &timeout)
        || !read_duration(connection, request, "wait", &wait)
        || !read_code(connection, request, &code))
        return;
    log_line("Will begin shutdown in %.*s, allowing %.*s for connections to close, then will exit "
             "with %ld",
             SPAN_ARGS(wait_text.len ? wait_text : SPAN("0s")),
             SPAN_ARGS(timeout_text.len ? timeout_text : SPAN("0s")), code);
    pending = calloc(1, sizeof(*pending));
    if (pending == NULL)
        die("out of memory");
    *pending = (struct pending_exit){
        .next = pending_exits,
        .connection = connection,
        .at = loop_now() + (wait > 0 ? wait : 0),
        .timeout = timeout,
        .code = (int)code,
    };
    pending_exits = pending;
    connection_wait(connection, pending, abandon);
}
