/* What the HTTP server's two halves share: connection.c talks on one connection, server.c accepts
 * them, keeps them in order and ends those that are silent for too long. */

#ifndef NETEXEC_CONNECTION_H
#define NETEXEC_CONNECTION_H

#include "netexec.h"

enum state { READING, WAITING, WRITING, LINGERING, CLOSED };

struct connection {
    struct source source;
    struct connection *previous, *next;
    enum state state;
    int64_t active_at;
    struct buffer in, out;
    size_t sent;
    size_t scanned;
    struct chunks chunks;
    bool continued; /* "100 Continue" was sent for this request */
    bool end_of_input;
    bool refused; /* close with a linger: there may be input that is not read */
    struct shape shape;
    void *owner;
    void (*abandon)(void *owner);
    char client[ADDRESS_TEXT_SIZE];
};

void connection_ready(struct source *source, uint32_t events);
void connection_close(struct connection *connection);
/* Answers what cannot be understood or accepted, and gives the connection up. */
void connection_refuse(struct connection *connection, struct problem problem);

bool server_accepts(void);
/* Something happened: the connection is now the last to time out. */
void server_touch(struct connection *connection);
/* To be called before the state becomes LINGERING. */
void server_linger(struct connection *connection);
void server_remove(struct connection *connection);

#endif
