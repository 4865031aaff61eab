/* Text as netexec handles it: slices, growing buffers, and Go's ways of writing values down. */

#ifndef NETEXEC_TEXT_H
#define NETEXEC_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* A piece of somebody else's memory; not terminated by a zero byte. */
struct span {
    const char *data;
    size_t len;
};

/* Memory that grows. `data` is NULL while nothing is allocated. */
struct buffer {
    char *data;
    size_t len;
    size_t capacity;
};

#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})
#define NO_SPAN ((struct span){"", 0})
/* For printf's "%.*s". */
#define SPAN_ARGS(s) (int)(s).len, (s).data

/* "[2001:db8::1%eth0]:65535" and its terminating zero. */
#define ADDRESS_TEXT_SIZE 80

struct span span_of(const char *text);
struct span span_of_buffer(const struct buffer *buffer);
bool span_equal(struct span a, struct span b);
bool span_equal_ignoring_case(struct span a, struct span b);
struct span span_trim(struct span text);
/* A zero-terminated copy for the caller to free. */
char *span_copy(struct span text);

void buffer_append(struct buffer *buffer, const char *data, size_t len);
void buffer_span(struct buffer *buffer, struct span text);
void buffer_text(struct buffer *buffer, const char *text);
void buffer_printf(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void buffer_drop_front(struct buffer *buffer, size_t len);
void buffer_free(struct buffer *buffer);

/* A JSON string as Go's encoding/json writes it: <, > and & escaped, invalid UTF-8 as \ufffd. */
void json_string(struct buffer *out, struct span text);
/* Go's %q. */
void go_quote(struct buffer *out, struct span text);
/* Go's wording of an errno value ("connection refused"). */
const char *errno_text(int error);

/* Go's strconv.Atoi: NULL and `*value`, or the reason why it is no integer. */
const char *parse_integer(struct span text, long *value);
/* Go's time.ParseDuration ("1m30s", "250ms", "0"), in nanoseconds. */
bool parse_duration(struct span text, int64_t *nanoseconds);

/* "10.244.0.2:51234" or "[fd00::2]:51234"; an IPv4-mapped address is written as IPv4. */
void address_text(const struct sockaddr_storage *address, char text[ADDRESS_TEXT_SIZE]);

/* The length of the UTF-8 sequence that `text` starts with, 0 if it is not valid UTF-8. */
size_t utf8_length(struct span text);

#endif
