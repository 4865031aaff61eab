/* Go's http.Redirect. */

#include "netexec.h"

#include <ctype.h>
#include <string.h>

static bool is_absolute(struct span location)
{
    size_t i = 0;

    if (location.len >= 2 && memcmp(location.data, "//", 2) == 0)
        return true; /* another host, same scheme */
    while (i < location.len
           && (isalnum((unsigned char)location.data[i])
               || (location.data[i] != '\0' && strchr("+-.", location.data[i]) != NULL)))
        i++;
    return i > 0 && i < location.len && location.data[i] == ':'
        && isalpha((unsigned char)location.data[0]);
}

/* A relative location is seen from the directory of the request's path, and cleaned. */
static void resolve(struct buffer *out, struct span from, struct span location)
{
    struct buffer path = {0};
    const char *query = memchr(location.data, '?', location.len);
    size_t path_len = query == NULL ? location.len : (size_t)(query - location.data);

    if (is_absolute(location)) {
        buffer_span(out, location);
        return;
    }
    if (location.len == 0 || location.data[0] != '/') {
        const char *slash = memrchr(from.data, '/', from.len);

        buffer_append(&path, from.data, (size_t)(slash - from.data) + 1);
    }
    buffer_append(&path, location.data, path_len);
    path_clean(out, span_of_buffer(&path));
    buffer_append(out, location.data + path_len, location.len - path_len);
    buffer_free(&path);
}

/* Bytes beyond ASCII are escaped, and line ends cannot start a header of their own. */
static void header_value(struct buffer *out, struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c >= 0x80)
            buffer_printf(out, "%%%02x", c);
        else
            buffer_printf(out, "%c", c == '\r' || c == '\n' || c == '\0' ? ' ' : c);
    }
}

static void html_escape(struct buffer *out, struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        switch (text.data[i]) {
        case '&':
            buffer_text(out, "&amp;");
            break;
        case '<':
            buffer_text(out, "&lt;");
            break;
        case '>':
            buffer_text(out, "&gt;");
            break;
        case '"':
            buffer_text(out, "&#34;");
            break;
        case '\'':
            buffer_text(out, "&#39;");
            break;
        default:
            buffer_append(out, &text.data[i], 1);
        }
    }
}

void redirect_to(struct connection *connection, const struct request *request,
                 struct span location, int status)
{
    bool get = span_equal(request->method, SPAN("GET"));
    struct response response = {.status = status};
    struct buffer target = {0};
    struct buffer header = {0};
    struct buffer body = {0};

    resolve(&target, request->path, location);
    header_value(&header, span_of_buffer(&target));
    buffer_append(&header, "", 1);
    if (get) {
        buffer_text(&body, "<a href=\"");
        html_escape(&body, span_of_buffer(&target));
        buffer_printf(&body, "\">%s</a>.\n\n", status_text(status));
    }
    if (get || span_equal(request->method, SPAN("HEAD")))
        response.content_type = "text/html; charset=utf-8";
    response.location = header.data;
    response.body = span_of_buffer(&body);
    connection_respond(connection, &response);
    buffer_free(&target);
    buffer_free(&header);
    buffer_free(&body);
}

void redirect_endpoint(struct connection *connection, struct request *request)
{
    struct span location = request_form(request, "location");
    struct span code = request_form(request, "code");
    struct buffer text = {0};
    long status = 302;

    log_line("%.*s /redirect?msg=%.*s&code=%.*s", SPAN_ARGS(request->method), SPAN_ARGS(location),
             SPAN_ARGS(code));
    if (code.len > 0 && parse_integer(code, &status) != NULL) {
        buffer_text(&text, "argument 'code' must be an integer or empty, got ");
        go_quote(&text, code);
        buffer_text(&text, "\n");
        respond_text(connection, 200, span_of_buffer(&text));
        buffer_free(&text);
        return;
    }
    redirect_to(connection, request, location, status < 0 || status > 999 ? 0 : (int)status);
}
