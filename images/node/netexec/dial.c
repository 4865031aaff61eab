/* /dial, in a child of its own: sends requests to another pod and reports what came back. */

#include "netexec.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* Per try, in milliseconds. The tests put less here. */
#ifndef NETEXEC_DIAL_TIMEOUT
#define NETEXEC_DIAL_TIMEOUT 5000
#endif

#define MAX_UDP_ANSWER 2048
#define MAX_SCTP_ANSWER 1024

int64_t dial_deadline(void)
{
    return loop_now() + NETEXEC_DIAL_TIMEOUT;
}

bool dial_wait(int fd, short events, int64_t deadline)
{
    struct pollfd waiting = {.fd = fd, .events = events};
    int64_t left;

    while ((left = deadline - loop_now()) > 0)
        if (poll(&waiting, 1, (int)left) > 0)
            return true;
    errno = ETIMEDOUT;
    return false;
}

static socklen_t address_len(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_in);
}

int dial_connect(const struct sockaddr_storage *address, int protocol, int64_t deadline)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK, protocol);
    socklen_t len = sizeof(int);
    int error = 0;

    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)address, address_len(address)) == 0)
        return fd;
    if (errno != EINPROGRESS)
        error = errno;
    else if (!dial_wait(fd, POLLOUT, deadline))
        error = EAGAIN; /* the deadline: not the kernel's own ETIMEDOUT */
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error == 0)
        return fd;
    close(fd);
    errno = error;
    return -1;
}

bool dial_resolve(const char *host, const char *port, struct sockaddr_storage *address,
                  struct buffer *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    struct addrinfo *chosen;
    int failure;

    if (*host == '\0' || *port == '\0') {
        buffer_printf(error, "missing %s", *host == '\0' ? "host" : "port");
        return false;
    }
    failure = getaddrinfo(host, port, &hints, &found);
    if (failure != 0) {
        buffer_printf(error, "lookup %s, port %s: %s", host, port, gai_strerror(failure));
        return false;
    }
    chosen = found; /* like Go: IPv4 if there is one */
    for (struct addrinfo *each = found; each != NULL; each = each->ai_next)
        if (each->ai_family == AF_INET && chosen->ai_family != AF_INET)
            chosen = each;
    memset(address, 0, sizeof(*address));
    memcpy(address, chosen->ai_addr, chosen->ai_addrlen);
    freeaddrinfo(found);
    return true;
}

/* "read udp 10.244.0.2:40000->10.244.1.2:8081: i/o timeout" */
static void read_failure(struct buffer *error, const char *network, int fd,
                         const struct sockaddr_storage *address, int reason)
{
    struct sockaddr_storage local = {0};
    socklen_t len = sizeof(local);
    char from[ADDRESS_TEXT_SIZE];
    char to[ADDRESS_TEXT_SIZE];

    getsockname(fd, (struct sockaddr *)&local, &len);
    address_text(&local, from);
    address_text(address, to);
    buffer_printf(error, "reading from %s connection failed. err:'read %s %s->%s: ", network,
                  network, from, to);
    if (reason == 0)
        buffer_text(error, "i/o timeout'");
    else
        buffer_printf(error, "read: %s'", errno_text(reason));
}

/* Sends the request over a connected socket and takes one message as the answer. */
static bool exchange(int fd, const char *network, const struct dial *dial, int64_t deadline,
                     const struct sockaddr_storage *address, size_t max_answer,
                     struct buffer *answer, struct buffer *error)
{
    char text[MAX_UDP_ANSWER];
    ssize_t count;

    if (send(fd, dial->request, strlen(dial->request), MSG_NOSIGNAL) < 0) {
        buffer_printf(error, "%s connection write failed. err:%s", network, errno_text(errno));
        return false;
    }
    if (!dial_wait(fd, POLLIN, deadline)) {
        read_failure(error, network, fd, address, 0);
        return false;
    }
    count = recv(fd, text, max_answer, 0);
    if (count < 0) {
        read_failure(error, network, fd, address, errno);
        return false;
    }
    if (count == 0) {
        buffer_printf(error, "reading from %s connection failed. err:'EOF'", network);
        return false;
    }
    buffer_append(answer, text, (size_t)count);
    return true;
}

static bool dial_udp(const struct dial *dial, const struct sockaddr_storage *address,
                     struct buffer *answer, struct buffer *error)
{
    int fd = socket(address->ss_family, SOCK_DGRAM, 0);
    bool answered = false;

    if (fd < 0 || connect(fd, (const struct sockaddr *)address, address_len(address)) < 0)
        buffer_printf(error, "udp dial failed. err:%s", errno_text(errno));
    else
        answered = exchange(fd, "udp", dial, dial_deadline(), address, MAX_UDP_ANSWER, answer,
                            error);
    if (fd >= 0)
        close(fd);
    return answered;
}

static bool dial_sctp(const struct dial *dial, const struct sockaddr_storage *address,
                      struct buffer *answer, struct buffer *error)
{
    int64_t deadline = dial_deadline();
    int fd = dial_connect(address, NETEXEC_SCTP_PROTOCOL, deadline);
    bool answered = false;

    if (fd < 0)
        buffer_printf(error, "sctp dial failed. err:%s",
                      errno == EAGAIN ? "i/o timeout" : errno_text(errno));
    else
        answered = exchange(fd, "sctp", dial, deadline, address, MAX_SCTP_ANSWER, answer, error);
    if (fd >= 0)
        close(fd);
    return answered;
}

static bool dial_once(const struct dial *dial, const struct sockaddr_storage *address,
                      struct buffer *answer, struct buffer *error)
{
    if (strcasecmp(dial->protocol, "udp") == 0)
        return dial_udp(dial, address, answer, error);
    if (strcasecmp(dial->protocol, "sctp") == 0)
        return dial_sctp(dial, address, answer, error);
    return dial_http(dial, address, answer, error);
}

/* Appends to a JSON list that is still empty or open. */
static void list_add(struct buffer *list, const struct buffer *item)
{
    buffer_text(list, list->len == 0 ? "[" : ",");
    json_string(list, span_of_buffer(item));
}

/* {"errors":[…],"responses":[…]}. agnhost leaves the responses out when the last try brought none,
 * and so does this. */
static void report(struct buffer *out, struct buffer *errors, struct buffer *responses,
                   bool last_answered)
{
    buffer_text(out, "{");
    if (errors->len > 0) {
        buffer_text(out, "\"errors\":");
        buffer_span(out, span_of_buffer(errors));
        buffer_text(out, "]");
    }
    if (last_answered) {
        buffer_text(out, errors->len > 0 ? ",\"responses\":" : "\"responses\":");
        buffer_span(out, span_of_buffer(responses));
        buffer_text(out, "]");
    }
    buffer_text(out, "}");
}

static void dial_all(const struct dial *dial, const struct sockaddr_storage *address,
                     struct buffer *out)
{
    struct buffer errors = {0};
    struct buffer responses = {0};
    bool last_answered = false;

    for (long i = 0; i < dial->tries; i++) {
        struct buffer answer = {0};
        struct buffer error = {0};
        bool answered = dial_once(dial, address, &answer, &error);

        list_add(answered ? &responses : &errors, answered ? &answer : &error);
        last_answered = answered && answer.len > 0;
        buffer_free(&answer);
        buffer_free(&error);
    }
    report(out, &errors, &responses, last_answered);
    buffer_free(&errors);
    buffer_free(&responses);
}

int dial_run(const struct dial *dial)
{
    struct sockaddr_storage address;
    struct buffer out = {0};
    struct buffer error = {0};
    int status = 200;
    size_t sent = 0;

    if (dial_resolve(dial->host, dial->port, &address, &error)) {
        dial_all(dial, &address, &out);
    } else {
        status = 400;
        buffer_printf(&out, "host and/or port param are invalid. %.*s\n", (int)error.len,
                      error.data);
    }
    while (sent < out.len) {
        ssize_t count = write(STDOUT_FILENO, out.data + sent, out.len - sent);

        if (count < 0)
            break; /* the server is gone */
        sent += (size_t)count;
    }
    buffer_free(&out);
    buffer_free(&error);
    return status;
}
