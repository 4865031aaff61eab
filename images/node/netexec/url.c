/* Percent-encoding and paths, as Go's net/url and path have them. */

#include "request.h"

#include <ctype.h>
#include <string.h>

static int hex_digit(char c)
{
    if (isdigit((unsigned char)c))
        return c - '0';
    return tolower((unsigned char)c) - 'a' + 10;
}

bool percent_decode(char *text, size_t *len, bool plus_is_space)
{
    size_t write = 0;

    for (size_t read = 0; read < *len; read++) {
        char c = text[read];

        if (c == '%') {
            if (*len - read < 3 || !isxdigit((unsigned char)text[read + 1])
                || !isxdigit((unsigned char)text[read + 2]))
                return false;
            c = (char)(hex_digit(text[read + 1]) << 4 | hex_digit(text[read + 2]));
            read += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        text[write++] = c;
    }
    *len = write;
    return true;
}

void percent_encode(struct buffer *out, struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (isalnum(c) || (c != '\0' && strchr("$&+,/:;=@-_.~!*'()", c) != NULL))
            buffer_append(out, &text.data[i], 1);
        else
            buffer_printf(out, "%%%02X", c);
    }
}

/* Removes the last element of the path that `out` holds from `start` on. */
static void drop_element(struct buffer *out, size_t start)
{
    while (out->len > start && out->data[out->len - 1] != '/')
        out->len--;
    if (out->len > start)
        out->len--;
}

void path_clean(struct buffer *out, struct span path)
{
    size_t start = out->len;
    bool trailing_slash = path.len > 0 && path.data[path.len - 1] == '/';

    while (path.len > 0) {
        const char *slash = memchr(path.data, '/', path.len);
        size_t len = slash == NULL ? path.len : (size_t)(slash - path.data);
        struct span element = {path.data, len};

        path.data += len + (slash != NULL);
        path.len -= len + (slash != NULL);
        if (span_equal(element, SPAN(".."))) {
            drop_element(out, start);
        } else if (element.len > 0 && !span_equal(element, SPAN("."))) {
            buffer_text(out, "/");
            buffer_span(out, element);
        }
    }
    if (out->len == start || trailing_slash)
        buffer_text(out, "/");
}
