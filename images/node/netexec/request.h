/* One HTTP request: its head as received, then its query, form and multipart fields decoded. */

#ifndef NETEXEC_REQUEST_H
#define NETEXEC_REQUEST_H

#include "text.h"

#define MAX_HEADERS 128
#define MAX_FIELDS 128
/* Far above the limit on bodies, far below where sizes overflow. */
#define LENGTH_CEILING ((size_t)1 << 40)

struct header {
    struct span name;
    struct span value;
};

/* A field of the query or of an urlencoded form, decoded. */
struct field {
    struct span name;
    struct span value;
    bool in_body;
};

struct request {
    struct span method;
    struct span target;
    bool http_1_0;
    struct header headers[MAX_HEADERS];
    int header_count;
    bool keep_alive;
    bool expects_continue;
    bool chunked;
    size_t content_length;
    /* Valid after request_decode(). */
    struct span path;
    struct span raw_query; /* as sent, with its question mark */
    struct span body;
    struct field fields[MAX_FIELDS];
    int field_count;
    /* "10.244.0.2:51234". */
    const char *client;
};

/* What is wrong with a request: a status to answer with, and what Go adds to its text. */
struct problem {
    int status;
    const char *detail;
};

#define NO_PROBLEM ((struct problem){0, NULL})

/* The length of the head with its empty line, 0 while it is incomplete. `*scanned` remembers how
 * far the search came, so that a request arriving byte by byte is not searched again and again. */
size_t request_head_length(struct span input, size_t *scanned);

struct problem request_parse_head(struct request *request, struct span head);
/* Only the lines behind the first one, which responses have as well. */
struct problem request_parse_headers(struct request *request, struct span lines);

/* Decodes path, query and an urlencoded body. `target` is a writable copy of request->target; it
 * and `body` are decoded in place, and the fields point into them. */
struct problem request_decode(struct request *request, char *target, char *body, size_t body_len);

struct span request_header(const struct request *request, struct span name);

/* The first field of that name in the query; empty when there is none. */
struct span request_query(const struct request *request, const char *name);

/* Go's FormValue: urlencoded body first, then query, then multipart fields. */
struct span request_form(const struct request *request, const char *name);

/* The content of the multipart field `name` which is a file; false when there is none. */
bool request_file(const struct request *request, const char *name, struct span *content);

/* How much of a chunked body has been looked at: complete chunks, and their content. */
struct chunks {
    size_t encoded;
    size_t decoded;
};

/* The encoded length of a chunked body, 0 while it is incomplete, -1 when it is malformed. */
long chunked_length(struct span input, struct chunks *seen);
/* Decodes a complete chunked body in place and returns the length of its content. */
size_t chunked_decode(char *body, size_t encoded);

/* Decodes %XX (and '+' as a space in queries) in place; false on a bad escape. */
bool percent_decode(char *text, size_t *len, bool plus_is_space);
void percent_encode(struct buffer *out, struct span text);

/* Go's path.Clean for a path that starts with a slash, keeping a trailing slash. */
void path_clean(struct buffer *out, struct span path);

#endif
