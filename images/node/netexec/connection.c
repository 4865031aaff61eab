/* HTTP connections: from bytes to requests and back, RFC 9112. A connection reads until it has a
 * whole request, writes its whole answer, and only then looks at the next request. */

#include "connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_HEAD (64 * 1024)
#define MAX_BODY (8 * 1024 * 1024)
#define READ_SIZE (16 * 1024)
#define READS_PER_EVENT 16

void connection_close(struct connection *connection)
{
    if (connection->state == CLOSED)
        return;
    if (connection->state == WAITING)
        connection->abandon(connection->owner);
    server_remove(connection);
    connection->state = CLOSED;
    buffer_free(&connection->in);
    buffer_free(&connection->out);
    loop_discard(&connection->source);
}

void connection_respond(struct connection *connection, const struct response *response)
{
    if (response->status < 100 || response->status > 999) {
        connection_abort(connection); /* Go's WriteHeader panics */
        return;
    }
    connection->shape.close |= response->close || !server_accepts();
    response_write(&connection->out, response, connection->shape);
    connection->state = WRITING;
}

void connection_abort(struct connection *connection)
{
    connection->state = READING; /* nobody is to be told */
    connection_close(connection);
}

void connection_wait(struct connection *connection, void *owner, void (*abandon)(void *owner))
{
    connection->state = WAITING;
    connection->owner = owner;
    connection->abandon = abandon;
}

void connection_refuse(struct connection *connection, struct problem problem)
{
    struct buffer text = {0};
    struct response response = {.status = problem.status, .close = true};

    buffer_printf(&text, "%d %s", problem.status, status_text(problem.status));
    if (problem.detail != NULL)
        buffer_printf(&text, ": %s", problem.detail);
    response.body = span_of_buffer(&text);
    connection->shape = (struct shape){0};
    connection->refused = true;
    connection_respond(connection, &response);
    buffer_free(&text);
}

/* Finds the end of the body. Returns whether it is all there; a problem is answered at once. */
static bool body_complete(struct connection *connection, const struct request *request,
                          size_t head, size_t *encoded)
{
    struct span rest = {connection->in.data + head, connection->in.len - head};
    long length = (long)request->content_length;
    size_t content = request->content_length;

    if (request->chunked) {
        length = chunked_length(rest, &connection->chunks);
        content = rest.len / 2;
        if (connection->chunks.decoded > content)
            content = connection->chunks.decoded;
    }
    if (length < 0) {
        connection_refuse(connection, (struct problem){400, NULL});
        return false;
    }
    if (content > MAX_BODY) {
        connection_refuse(connection, (struct problem){413, NULL});
        return false;
    }
    *encoded = (size_t)length;
    if (rest.len >= *encoded && (length > 0 || !request->chunked))
        return true;
    if (request->expects_continue && !connection->continued) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

        /* Fits into an empty send buffer; a client that never reads gets no answer anyway. */
        (void)send(connection->source.fd, go_on, sizeof(go_on) - 1, MSG_NOSIGNAL);
        connection->continued = true;
    }
    return false;
}

static void handle(struct connection *connection, struct request *request, size_t head,
                   size_t encoded)
{
    char *target = span_copy(request->target);
    char *body = connection->in.data + head;
    size_t body_len = request->chunked ? chunked_decode(body, encoded) : encoded;
    struct problem problem;

    connection->shape = (struct shape){
        .http_1_0 = request->http_1_0,
        .head_only = span_equal(request->method, SPAN("HEAD")),
        .close = !request->keep_alive,
    };
    request->client = connection->client;
    problem = request_decode(request, target, body, body_len);
    if (problem.status != 0)
        connection_refuse(connection, problem);
    else
        http_handle(connection, request);
    free(target);
}

/* Starts on the next request if it is complete; returns whether it did. */
static bool take_request(struct connection *connection)
{
    struct request request = {0};
    struct problem problem = NO_PROBLEM;
    size_t encoded;
    size_t head = request_head_length(span_of_buffer(&connection->in), &connection->scanned);

    if (head > MAX_HEAD || (head == 0 && connection->in.len > MAX_HEAD))
        problem.status = 431;
    else if (head == 0)
        return false;
    else
        problem = request_parse_head(&request, (struct span){connection->in.data, head});
    if (problem.status != 0) {
        connection_refuse(connection, problem);
        return true;
    }
    if (!body_complete(connection, &request, head, &encoded))
        return connection->state != READING;
    handle(connection, &request, head, encoded);
    if (connection->state == CLOSED)
        return true;
    buffer_drop_front(&connection->in, head + encoded);
    connection->scanned = 0;
    connection->chunks = (struct chunks){0};
    connection->continued = false;
    return true;
}

/* Closes our direction only, and throws away what still comes: closing while there is unread input
 * would reset the connection, and with it the answer that is on its way. */
static void give_up(struct connection *connection)
{
    server_linger(connection);
    connection->state = LINGERING;
    shutdown(connection->source.fd, SHUT_WR);
    buffer_free(&connection->in);
}

/* Sends what is left of the answer; false when the socket takes no more or is closed. */
static bool flush(struct connection *connection)
{
    while (connection->sent < connection->out.len) {
        ssize_t count = send(connection->source.fd, connection->out.data + connection->sent,
                             connection->out.len - connection->sent, MSG_NOSIGNAL);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            if (errno != EAGAIN)
                connection_close(connection);
            return false;
        }
        connection->sent += (size_t)count;
        server_touch(connection);
    }
    buffer_free(&connection->out);
    connection->sent = 0;
    connection->state = READING;
    if (connection->refused)
        give_up(connection);
    else if (connection->shape.close || !server_accepts())
        connection_close(connection);
    return connection->state == READING;
}

void connection_resume(struct connection *connection)
{
    static const uint32_t events[] = {
        [READING] = EPOLLIN, [WAITING] = 0, [WRITING] = EPOLLOUT, [LINGERING] = EPOLLIN};

    while (connection->state == READING || connection->state == WRITING) {
        if (connection->state == WRITING && !flush(connection))
            break;
        if (connection->state == READING && !take_request(connection))
            break;
    }
    if (connection->state == READING && connection->end_of_input)
        connection_close(connection);
    if (connection->state != CLOSED)
        loop_watch(&connection->source, events[connection->state]);
}

/* Reads what there is. With `keep` false it is thrown away. */
static void read_input(struct connection *connection, bool keep)
{
    static char input[READ_SIZE];

    for (int i = 0; i < READS_PER_EVENT && !connection->end_of_input; i++) {
        ssize_t count = recv(connection->source.fd, input, sizeof(input), 0);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return;
        if (count <= 0)
            connection->end_of_input = true;
        else if (keep)
            buffer_append(&connection->in, input, (size_t)count);
    }
}

void connection_ready(struct source *source, uint32_t events)
{
    struct connection *connection = (struct connection *)source;

    if (connection->state == LINGERING) {
        read_input(connection, false);
        if (connection->end_of_input)
            connection_close(connection);
        return;
    }
    if (connection->state == WAITING || (events & EPOLLERR)) {
        connection_close(connection); /* only errors are reported while waiting */
        return;
    }
    if (connection->state == READING) {
        server_touch(connection);
        read_input(connection, true);
    }
    connection_resume(connection);
}
