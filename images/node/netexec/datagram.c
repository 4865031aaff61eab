/* The UDP server, and the SCTP server that understands the same commands.
 *
 * As in agnhost, a UDP server on all addresses answers from whichever of its addresses the routing
 * table prefers, not necessarily the one that was asked; --udp-listen-addresses is the cure. */

#include "netexec.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MAX_UDP_COMMAND 2048
#define MAX_SCTP_COMMAND 1024
#define PACKETS_PER_EVENT 64

struct udp_server {
    struct source source;
    struct udp_server *next;
};

static struct udp_server *udp_servers;
static struct source sctp_listener = {.fd = -1};

bool datagram_ready(void)
{
    return udp_servers != NULL || sctp_listener.fd >= 0;
}

/* What to answer to the command (which is put into lower case in place); nothing if unknown. */
static struct span answer_to(char *text, size_t len, const char *client, const char *protocol)
{
    struct span command;

    for (size_t i = 0; i < len; i++)
        text[i] = (char)tolower((unsigned char)text[i]);
    command = span_trim((struct span){text, len});
    if (span_equal(command, SPAN("hostname"))) {
        log_line("Sending %s hostName response", protocol);
        return host_name();
    }
    if (span_equal(command, SPAN("clientip"))) {
        log_line("Sending clientip back to %s client %s", protocol, client);
        return span_of(client);
    }
    if (command.len > 5 && memcmp(command.data, "echo ", 5) == 0) {
        struct span message = {command.data + 5, command.len - 5};

        log_line("Echoing %.*s to %s client %s", SPAN_ARGS(message), protocol, client);
        return message;
    }
    if (command.len > 0)
        log_line("Unknown %s command received from %s: %.*s", protocol, client, SPAN_ARGS(command));
    return NO_SPAN;
}

static void udp_ready(struct source *source, uint32_t events)
{
    static char packet[MAX_UDP_COMMAND];

    (void)events;
    for (int i = 0; i < PACKETS_PER_EVENT; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t peer_len = sizeof(peer);
        char client[ADDRESS_TEXT_SIZE];
        struct span answer;
        ssize_t count = recvfrom(source->fd, packet, sizeof(packet), 0, (struct sockaddr *)&peer,
                                 &peer_len);

        if (count < 0)
            return;
        address_text(&peer, client);
        answer = answer_to(packet, (size_t)count, client, "UDP");
        if (answer.len > 0
            && sendto(source->fd, answer.data, answer.len, 0, (struct sockaddr *)&peer, peer_len)
                < 0)
            log_line("failed to answer UDP client %s: %s", client, errno_text(errno));
    }
}

static void udp_listen_on(const char *address, int port)
{
    struct udp_server *server = calloc(1, sizeof(*server));

    if (server == NULL)
        die("out of memory");
    server->source.fd = listen_on(address, port, SOCK_DGRAM, 0);
    server->source.ready = udp_ready;
    if (server->source.fd < 0)
        die("listen udp %s:%d: bind: %s", address ? address : "", port, errno_text(errno));
    server->next = udp_servers;
    udp_servers = server;
    loop_watch(&server->source, EPOLLIN);
    log_line("Started UDP server on port %s %d", address ? address : "", port);
}

/* Whether the address occurs before `end` in the list. */
static bool listed_before(const char *list, const char *end, const char *address)
{
    size_t len = strlen(address);

    for (const char *at = list; at < end; at += strcspn(at, ",") + 1)
        if (strcspn(at, ",") == len && memcmp(at, address, len) == 0)
            return true;
    return false;
}

void udp_listen(int port, const char *addresses)
{
    const char *at = addresses;

    if (*at == '\0')
        udp_listen_on(NULL, port);
    while (*at != '\0') {
        size_t len = strcspn(at, ",");
        char *address = span_copy((struct span){at, len});

        if (!listed_before(addresses, at, address))
            udp_listen_on(address, port);
        free(address);
        at += len + (at[len] == ',');
    }
}

/* An SCTP association: one command, one answer, closed. */
struct association {
    struct source source;
    char client[ADDRESS_TEXT_SIZE];
};

static void association_ready(struct source *source, uint32_t events)
{
    static char message[MAX_SCTP_COMMAND];
    struct association *association = (struct association *)source;
    ssize_t count = recv(source->fd, message, sizeof(message), 0);

    (void)events;
    if (count < 0 && errno == EAGAIN)
        return;
    if (count > 0) {
        struct span answer = answer_to(message, (size_t)count, association->client, "SCTP");

        if (answer.len > 0 && send(source->fd, answer.data, answer.len, MSG_NOSIGNAL) < 0)
            log_line("failed to answer SCTP client %s: %s", association->client,
                     errno_text(errno));
    }
    loop_discard(source);
}

static void sctp_ready(struct source *source, uint32_t events)
{
    struct sockaddr_storage peer = {0};
    socklen_t peer_len = sizeof(peer);
    struct association *association;
    int fd = accept4(source->fd, (struct sockaddr *)&peer, &peer_len,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    association = calloc(1, sizeof(*association));
    if (association == NULL)
        die("out of memory");
    association->source = (struct source){.fd = fd, .ready = association_ready};
    address_text(&peer, association->client);
    loop_watch(&association->source, EPOLLIN);
}

void sctp_listen(int port)
{
    sctp_listener.fd = listen_on(NULL, port, SOCK_STREAM, NETEXEC_SCTP_PROTOCOL);
    sctp_listener.ready = sctp_ready;
    if (sctp_listener.fd < 0 && (errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT))
        die("listen sctp :%d: this kernel has no SCTP (CONFIG_IP_SCTP, module sctp): %s", port,
            errno_text(errno));
    if (sctp_listener.fd < 0)
        die("listen sctp :%d: bind: %s", port, errno_text(errno));
    loop_watch(&sctp_listener, EPOLLIN);
    log_line("Started SCTP server");
}
