/* What netexec's parts know of each other; main.c has the overview. */

#ifndef NETEXEC_H
#define NETEXEC_H

#include "loop.h"
#include "request.h"
#include "text.h"

#include <netinet/in.h>

/* The tests use a protocol that every kernel has. */
#ifndef NETEXEC_SCTP_PROTOCOL
#define NETEXEC_SCTP_PROTOCOL IPPROTO_SCTP
#endif

/* options.c */

struct options {
    int http_port;
    int udp_port;  /* -1: none */
    int sctp_port; /* -1: none */
    const char *http_override;
    const char *udp_listen_addresses;
    int delay_shutdown;   /* seconds */
    int64_t idle_timeout; /* milliseconds; 0: none */
    const char *upload_dir;
};

extern struct options options;

/* Fills `options`; leaves with status 2 on wrong usage, 0 after --help. */
void options_parse(int argc, char **argv);

/* log.c */

/* One line to stdout. Dropped when nobody reads there: a full pipe must not stop the server. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "netexec: …" to stderr, then exit status 1. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* listen.c */

/* A bound (and, for streams, listening) socket, or -1 with errno. `address` NULL means all, of
 * both families where the kernel has both. */
int listen_on(const char *address, int port, int type, int protocol);

/* server.c and connection.c: HTTP over TCP */

struct connection;

struct response {
    int status;
    struct span body;
    const char *content_type; /* NULL: text/plain */
    const char *location;
    bool nosniff;
    bool close;
};

void http_listen(int port);
/* No further connections; those that are idle are closed. */
void http_stop_listening(void);
int http_connection_count(void);
loop_timer http_timer;

/* Answers the request that the connection is working on. */
void connection_respond(struct connection *connection, const struct response *response);
/* Closes without an answer, as Go does when a handler panics. */
void connection_abort(struct connection *connection);
/* The answer comes later, from `owner`; `abandon(owner)` is called if the client goes away. */
void connection_wait(struct connection *connection, void *owner, void (*abandon)(void *owner));
/* Goes on after an answer that came later. */
void connection_resume(struct connection *connection);

/* response.c */

/* What the request asked of the shape of its answer. */
struct shape {
    bool http_1_0;
    bool head_only;
    bool close;
};

/* Appends the bytes of a response as Go's net/http writes them. */
void response_write(struct buffer *out, const struct response *response, struct shape shape);
const char *status_text(int status);

/* endpoints.c, redirect.c, upload.c */

void http_handle(struct connection *connection, struct request *request);
void redirect_to(struct connection *connection, const struct request *request,
                 struct span location, int status);
typedef void endpoint(struct connection *connection, struct request *request);
endpoint redirect_endpoint, upload_endpoint, exit_endpoint, shell_endpoint, dial_endpoint;

void respond_text(struct connection *connection, int status, struct span body);
/* Go's http.Error: the text with a line feed. */
void respond_error(struct connection *connection, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* jobs.c: children that work while the server goes on */

void jobs_child_ended(int pid, int status);

/* dial.c: runs in a child; writes the answer to stdout and returns the HTTP status */

struct dial {
    char *host;
    char *port;
    char *request;
    char *protocol;
    long tries;
};

int dial_run(const struct dial *dial);

/* dial_http.c */

bool dial_http(const struct dial *dial, const struct sockaddr_storage *address,
               struct buffer *answer, struct buffer *error);
/* Milliseconds that are left for a try. */
int64_t dial_deadline(void);
/* Waits for the descriptor; false when the deadline passed (errno is ETIMEDOUT). */
bool dial_wait(int fd, short events, int64_t deadline);
/* A connected stream, or -1 with errno. */
int dial_connect(const struct sockaddr_storage *address, int protocol, int64_t deadline);
bool dial_resolve(const char *host, const char *port, struct sockaddr_storage *address,
                  struct buffer *error);

/* datagram.c: the UDP and SCTP servers */

void udp_listen(int port, const char *addresses);
void sctp_listen(int port);
bool datagram_ready(void);

/* lifecycle.c: signals and the ways to end */

void lifecycle_open(void);
bool lifecycle_terminating(void);
/* Puts the signals back as a child expects them. */
void lifecycle_release_signals(void);
/* Stops accepting, lets open requests finish for that long (milliseconds), then exits. */
void lifecycle_drain(int code, int64_t timeout);
loop_timer lifecycle_timer;

/* hostname of this moment; it can change */
struct span host_name(void);

#endif
