/* Slices, growing buffers and UTF-8; see text.h. */

#include "text.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

struct span span_of_buffer(const struct buffer *buffer)
{
    return buffer->data == NULL ? NO_SPAN : (struct span){buffer->data, buffer->len};
}

bool span_equal(struct span a, struct span b)
{
    return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

bool span_equal_ignoring_case(struct span a, struct span b)
{
    return a.len == b.len && strncasecmp(a.data, b.data, a.len) == 0;
}

struct span span_trim(struct span text)
{
    while (text.len > 0 && isspace((unsigned char)text.data[0])) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && isspace((unsigned char)text.data[text.len - 1]))
        text.len--;
    return text;
}

char *span_copy(struct span text)
{
    struct buffer copy = {0};

    buffer_span(&copy, text);
    buffer_append(&copy, "", 1);
    return copy.data;
}

static void reserve(struct buffer *buffer, size_t more)
{
    size_t capacity = buffer->capacity ? buffer->capacity : 256;

    if (buffer->capacity - buffer->len >= more)
        return;
    while (capacity - buffer->len < more)
        capacity *= 2;
    buffer->data = realloc(buffer->data, capacity);
    if (buffer->data == NULL) {
        fputs("netexec: out of memory\n", stderr);
        exit(1);
    }
    buffer->capacity = capacity;
}

void buffer_append(struct buffer *buffer, const char *data, size_t len)
{
    if (len == 0)
        return;
    reserve(buffer, len);
    memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
}

void buffer_span(struct buffer *buffer, struct span text)
{
    buffer_append(buffer, text.data, text.len);
}

void buffer_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    int len;

    va_start(arguments, format);
    len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (len < 0)
        return;
    reserve(buffer, (size_t)len + 1);
    va_start(arguments, format);
    vsnprintf(buffer->data + buffer->len, (size_t)len + 1, format, arguments);
    va_end(arguments);
    buffer->len += (size_t)len;
}

void buffer_drop_front(struct buffer *buffer, size_t len)
{
    if (len == 0)
        return;
    if (len >= buffer->len) {
        buffer_free(buffer);
        return;
    }
    buffer->len -= len;
    memmove(buffer->data, buffer->data + len, buffer->len);
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

size_t utf8_length(struct span text)
{
    const unsigned char *bytes = (const unsigned char *)text.data;
    static const unsigned smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len;
    unsigned rune;

    if (text.len == 0)
        return 0;
    if (bytes[0] < 0x80)
        return 1;
    len = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
    if (bytes[0] < 0xc2 || bytes[0] > 0xf4 || len > text.len)
        return 0;
    rune = bytes[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        rune = rune << 6 | (bytes[i] & 0x3f);
    }
    if (rune < smallest[len] || rune > 0x10ffff || (rune >= 0xd800 && rune <= 0xdfff))
        return 0;
    return len;
}
