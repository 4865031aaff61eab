/* Bodies with "Transfer-Encoding: chunked", RFC 9112 section 7.1. */

#include "request.h"

#include <ctype.h>
#include <string.h>

/* Nobody has chunk extensions this long. */
#define MAX_SIZE_LINE 256

/* Reads a chunk's size line. Returns its length, 0 while it is incomplete, -1 when malformed. */
static long chunk_size(struct span input, size_t *size)
{
    const char *end = memchr(input.data, '\n', input.len);
    size_t digits = 0;

    *size = 0;
    if (end == NULL)
        return input.len > MAX_SIZE_LINE ? -1 : 0;
    while (isxdigit((unsigned char)input.data[digits])) {
        int c = tolower((unsigned char)input.data[digits++]);

        *size = *size * 16 + (size_t)(isdigit(c) ? c - '0' : c - 'a' + 10);
        if (*size > LENGTH_CEILING)
            return -1;
    }
    if (digits == 0 || memchr(";\r\n \t", input.data[digits], 5) == NULL)
        return -1;
    return end - input.data + 1;
}

/* The length of the trailer with its empty line, 0 while it is incomplete. */
static size_t trailer_length(struct span input)
{
    const char *line = input.data;
    const char *end = input.data + input.len;
    const char *line_end;

    while ((line_end = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        if (line_end == line || (line_end == line + 1 && *line == '\r'))
            return (size_t)(line_end - input.data) + 1;
        line = line_end + 1;
    }
    return 0;
}

long chunked_length(struct span input, struct chunks *seen)
{
    for (;;) {
        struct span rest = {input.data + seen->encoded, input.len - seen->encoded};
        size_t size;
        long line = chunk_size(rest, &size);

        if (line <= 0)
            return line;
        rest.data += line;
        rest.len -= (size_t)line;
        if (size == 0) {
            size_t trailer = trailer_length(rest);
            return trailer == 0 ? 0 : rest.data - input.data + (long)trailer;
        }
        if (rest.len < size + 2)
            return 0;
        if (memcmp(rest.data + size, "\r\n", 2) != 0)
            return -1;
        seen->encoded += (size_t)line + size + 2;
        seen->decoded += size;
    }
}

size_t chunked_decode(char *body, size_t encoded)
{
    const char *end = body + encoded;
    const char *read = body;
    char *write = body;
    size_t size;

    for (;;) {
        read += chunk_size((struct span){read, (size_t)(end - read)}, &size);
        if (size == 0)
            return (size_t)(write - body);
        memmove(write, read, size);
        write += size;
        read += size + 2;
    }
}
