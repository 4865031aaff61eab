/* What Go's http.Client does for a GET: redirects are followed, one deadline covers all of it. */

#include "netexec.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_REDIRECTS 10
#define MAX_ANSWER (2 * 1024 * 1024)

/* Where to go next. */
struct hop {
    struct sockaddr_storage address;
    struct buffer authority; /* "10.244.1.2:8080" */
    struct buffer target;    /* "/hostname?x=y" */
};

/* A response that is being received. */
struct answer {
    struct buffer bytes;
    size_t head; /* length of the head; 0 while it is not complete */
    int status;
    struct request fields; /* only its headers */
    long length;           /* of the body; -1: until the end */
    bool chunked;
    struct chunks chunks;
};

/* Escapes what cannot stand in a request line; a fragment is not sent. */
static void append_target(struct buffer *out, struct span text)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text.len && text.data[i] != '#'; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c > ' ' && c < 0x7f)
            buffer_append(out, &text.data[i], 1);
        else
            buffer_append(out, (char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
    }
}

static bool send_request(int fd, const struct hop *hop, int64_t deadline)
{
    struct buffer request = {0};
    size_t sent = 0;

    buffer_text(&request, "GET ");
    buffer_span(&request, span_of_buffer(&hop->target));
    buffer_text(&request, " HTTP/1.1\r\nHost: ");
    buffer_span(&request, span_of_buffer(&hop->authority));
    buffer_text(&request, "\r\nUser-Agent: Go-http-client/1.1\r\n\r\n");
    while (sent < request.len) {
        ssize_t count = send(fd, request.data + sent, request.len - sent, MSG_NOSIGNAL);

        if (count < 0 && errno == EAGAIN && dial_wait(fd, POLLOUT, deadline))
            continue;
        if (count < 0)
            break;
        sent += (size_t)count;
    }
    buffer_free(&request);
    return sent > 0;
}

/* "HTTP/1.1 200 OK" and the headers; false if this is no HTTP. */
static bool parse_head(struct answer *answer)
{
    struct span head = {answer->bytes.data, answer->head};
    const char *headers = (const char *)memchr(head.data, '\n', head.len) + 1;
    struct span lines = {headers, head.len - (size_t)(headers - head.data)};

    if (head.len < 13 || memcmp(head.data, "HTTP/1.", 7) != 0 || head.data[8] != ' ')
        return false;
    answer->status = atoi(head.data + 9);
    answer->fields = (struct request){0};
    if (request_parse_headers(&answer->fields, lines).status != 0)
        return false;
    answer->chunked = span_equal_ignoring_case(
        request_header(&answer->fields, SPAN("Transfer-Encoding")), SPAN("chunked"));
    answer->length = -1;
    if (request_header(&answer->fields, SPAN("Content-Length")).len > 0)
        answer->length = (long)answer->fields.content_length;
    if (answer->status == 204 || answer->status == 304)
        answer->length = 0;
    return true;
}

static struct span body_of(const struct answer *answer)
{
    return (struct span){answer->bytes.data + answer->head, answer->bytes.len - answer->head};
}

/* Whether all of the answer is there; -1 if it is broken. */
static int complete(struct answer *answer)
{
    size_t scanned = 0;

    while (answer->head == 0) {
        answer->head = request_head_length(span_of_buffer(&answer->bytes), &scanned);
        if (answer->head == 0)
            return 0;
        if (!parse_head(answer))
            return -1;
        if (answer->status >= 100 && answer->status <= 199) {
            buffer_drop_front(&answer->bytes, answer->head);
            answer->head = 0;
            scanned = 0;
        }
    }
    if (answer->chunked) {
        long length = chunked_length(body_of(answer), &answer->chunks);

        return length < 0 ? -1 : length > 0;
    }
    return answer->length >= 0 && body_of(answer).len >= (size_t)answer->length;
}

/* Receives until the answer is complete. NULL, or what went wrong. */
static const char *receive(int fd, struct answer *answer, int64_t deadline)
{
    char text[16 * 1024];

    for (;;) {
        int state = complete(answer);
        ssize_t count;

        if (state > 0)
            return NULL;
        if (state < 0)
            return "malformed HTTP response";
        if (answer->bytes.len > MAX_ANSWER)
            return "response is larger than 2 MiB";
        if (!dial_wait(fd, POLLIN, deadline))
            return answer->head == 0
                ? "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                : "context deadline exceeded (Client.Timeout or context cancellation while "
                  "reading body)";
        count = recv(fd, text, sizeof(text), 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (count < 0)
            return errno_text(errno);
        if (count == 0 && answer->head > 0 && answer->length < 0 && !answer->chunked)
            return NULL;
        if (count == 0)
            return answer->bytes.len == 0 ? "EOF" : "unexpected EOF";
        buffer_append(&answer->bytes, text, (size_t)count);
    }
}

/* One request and its answer. */
static const char *round_trip(const struct hop *hop, struct answer *answer, int64_t deadline,
                              struct buffer *reason)
{
    int fd = dial_connect(&hop->address, 0, deadline);
    const char *failure;

    if (fd < 0 && errno == EAGAIN)
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    if (fd < 0) {
        char to[ADDRESS_TEXT_SIZE];

        failure = errno_text(errno);
        address_text(&hop->address, to);
        buffer_printf(reason, "dial tcp %s: connect: %s", to, failure);
        buffer_append(reason, "", 1);
        return reason->data;
    }
    failure = send_request(fd, hop, deadline) ? receive(fd, answer, deadline) : errno_text(errno);
    close(fd);
    return failure;
}

/* "http://host[:port]/…": where that is. */
static bool go_elsewhere(struct hop *hop, struct span location, struct buffer *error)
{
    const char *slash = memchr(location.data, '/', location.len);
    size_t len = slash == NULL ? location.len : (size_t)(slash - location.data);
    char *host = span_copy((struct span){location.data, len});
    char *colon = strrchr(host, ':');
    char *bracket = strrchr(host, ']');
    bool has_port = colon != NULL && colon > bracket;
    bool resolved;

    buffer_free(&hop->authority);
    buffer_text(&hop->authority, host);
    buffer_free(&hop->target);
    if (slash == NULL)
        buffer_text(&hop->target, "/");
    append_target(&hop->target, (struct span){location.data + len, location.len - len});
    if (has_port)
        *colon = '\0';
    if (bracket != NULL)
        *bracket = '\0';
    resolved = dial_resolve(host + (*host == '['), has_port ? colon + 1 : "80", &hop->address,
                            error);
    free(host);
    return resolved;
}

/* Moves on to the Location of a redirect. */
static bool follow(struct hop *hop, struct span location, struct buffer *error)
{
    if (location.len > 7 && strncasecmp(location.data, "http://", 7) == 0)
        return go_elsewhere(hop, (struct span){location.data + 7, location.len - 7}, error);
    if (location.len > 2 && memcmp(location.data, "//", 2) == 0)
        return go_elsewhere(hop, (struct span){location.data + 2, location.len - 2}, error);
    if (location.len == 0 || location.data[0] != '/') {
        buffer_printf(error, "unsupported redirect to \"%.*s\"", SPAN_ARGS(location));
        return false;
    }
    buffer_free(&hop->target);
    append_target(&hop->target, location);
    return true;
}

static void failed(struct buffer *error, const struct hop *hop, const char *reason)
{
    buffer_printf(error, "Get \"http://%.*s%.*s\": %s", (int)hop->authority.len,
                  hop->authority.data, (int)hop->target.len, hop->target.data, reason);
}

static bool is_redirect(const struct answer *answer)
{
    return (answer->status >= 301 && answer->status <= 303) || answer->status == 307
        || answer->status == 308;
}

/* One hop of the way; true when it is over, one way or the other. */
static bool take_hop(struct hop *hop, int64_t deadline, bool last, struct buffer *body,
                     struct buffer *error)
{
    struct answer answer = {0};
    struct buffer reason = {0};
    const char *failure = round_trip(hop, &answer, deadline, &reason);
    struct span location = request_header(&answer.fields, SPAN("Location"));
    bool over = true;

    if (failure != NULL) {
        failed(error, hop, failure);
    } else if (is_redirect(&answer) && location.len > 0) {
        if (last)
            failed(error, hop, "stopped after 10 redirects");
        else
            over = !follow(hop, location, error);
    } else {
        struct span content = body_of(&answer);

        if (answer.chunked)
            content.len = chunked_decode(answer.bytes.data + answer.head, content.len);
        else if (answer.length >= 0)
            content.len = (size_t)answer.length;
        buffer_span(body, content);
    }
    buffer_free(&answer.bytes);
    buffer_free(&reason);
    return over;
}

bool dial_http(const struct dial *dial, const struct sockaddr_storage *address,
               struct buffer *answer, struct buffer *error)
{
    int64_t deadline = dial_deadline();
    struct hop hop = {.address = *address};
    char to[ADDRESS_TEXT_SIZE];

    for (const char *c = dial->request; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            buffer_text(error, "net/url: invalid control character in URL");
            return false;
        }
    }
    address_text(address, to);
    buffer_text(&hop.authority, to);
    buffer_text(&hop.target, "/");
    append_target(&hop.target, span_of(dial->request));
    for (int i = 0; !take_hop(&hop, deadline, i == MAX_REDIRECTS, answer, error); i++)
        continue;
    buffer_free(&hop.authority);
    buffer_free(&hop.target);
    return error->len == 0;
}
