/* The HTTP server: accepts connections and ends those that are silent for too long. */

#include "connection.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define ACCEPTS_PER_EVENT 64
/* How long a refused sender may go on sending, so that it gets to read the refusal. */
#define LINGER_TIME 1000

/* Ordered by last activity, so that the next to time out is in front. */
struct list {
    struct connection *first, *last;
    int count;
};

static struct list serving, lingering;
static struct source listener = {.fd = -1};
static bool exhausted; /* out of descriptors: wait for a connection to close */

static void unlink_from(struct list *list, struct connection *connection)
{
    *(connection->previous ? &connection->previous->next : &list->first) = connection->next;
    *(connection->next ? &connection->next->previous : &list->last) = connection->previous;
    connection->previous = connection->next = NULL;
    list->count--;
}

static void link_last(struct list *list, struct connection *connection)
{
    connection->previous = list->last;
    *(list->last ? &list->last->next : &list->first) = connection;
    list->last = connection;
    list->count++;
    connection->active_at = loop_now();
}

static struct list *list_of(const struct connection *connection)
{
    return connection->state == LINGERING ? &lingering : &serving;
}

bool server_accepts(void)
{
    return listener.fd >= 0;
}

void server_touch(struct connection *connection)
{
    unlink_from(list_of(connection), connection);
    link_last(list_of(connection), connection);
}

void server_linger(struct connection *connection)
{
    unlink_from(&serving, connection);
    link_last(&lingering, connection);
}

void server_remove(struct connection *connection)
{
    unlink_from(list_of(connection), connection);
    if (exhausted && listener.fd >= 0) {
        exhausted = false;
        loop_watch(&listener, EPOLLIN);
    }
}

static void accept_one(int fd, const struct sockaddr_storage *address)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    int on = 1;

    if (connection == NULL)
        die("out of memory");
    connection->source = (struct source){.fd = fd, .ready = connection_ready};
    address_text(address, connection->client);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    link_last(&serving, connection);
    loop_watch(&connection->source, EPOLLIN);
}

static void listener_ready(struct source *source, uint32_t events)
{
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof(address);
        int fd = accept4(source->fd, (struct sockaddr *)&address, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            accept_one(fd, &address);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* Watching on would turn in circles: the connection stays in the queue. */
            exhausted = true;
            loop_watch(source, 0);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

void http_listen(int port)
{
    listener.fd = listen_on(NULL, port, SOCK_STREAM, 0);
    listener.ready = listener_ready;
    if (listener.fd < 0)
        die("listen tcp :%d: bind: %s", port, errno_text(errno));
    loop_watch(&listener, EPOLLIN);
    log_line("Started HTTP server on port %d", port);
}

void http_stop_listening(void)
{
    struct connection *next;

    loop_close(&listener);
    for (struct connection *each = serving.first; each != NULL; each = next) {
        next = each->next;
        if (each->state == READING && each->in.len == 0)
            connection_close(each);
    }
}

int http_connection_count(void)
{
    return serving.count;
}

static void expire(struct connection *connection)
{
    if (connection->state == WAITING) {
        server_touch(connection);
    } else if (connection->state == READING && connection->in.len > 0) {
        server_touch(connection);
        connection_refuse(connection, (struct problem){408, NULL});
        connection_resume(connection);
    } else {
        connection_close(connection);
    }
}

/* Ends what is due and returns how long the next has left. */
static int64_t expire_all(struct list *list, int64_t now, int64_t timeout)
{
    while (list->first != NULL) {
        int64_t left = list->first->active_at + timeout - now;

        if (left > 0)
            return left;
        expire(list->first);
    }
    return -1;
}

int64_t http_timer(int64_t now)
{
    int64_t linger = expire_all(&lingering, now, LINGER_TIME);
    int64_t idle = -1;

    if (options.idle_timeout > 0)
        idle = expire_all(&serving, now, options.idle_timeout);
    return linger < 0 || (idle >= 0 && idle < linger) ? idle : linger;
}
