/* What a request says in its query and its body: fields and files. */

#include "request.h"

#include <string.h>

/* Takes one "name=value" apart. As in Go, a broken escape or a semicolon drops the field. */
static bool decode_field(char *text, size_t len, struct field *field)
{
    char *equals = memchr(text, '=', len);
    size_t name_len = equals == NULL ? len : (size_t)(equals - text);
    char *value = equals == NULL ? text + len : equals + 1;
    size_t value_len = len - (size_t)(value - text);

    if (len == 0 || memchr(text, ';', len) != NULL)
        return false;
    if (!percent_decode(text, &name_len, true) || !percent_decode(value, &value_len, true))
        return false;
    field->name = (struct span){text, name_len};
    field->value = (struct span){value, value_len};
    return true;
}

static bool decode_fields(struct request *request, char *text, size_t len, bool in_body)
{
    while (len > 0) {
        char *ampersand = memchr(text, '&', len);
        size_t field_len = ampersand == NULL ? len : (size_t)(ampersand - text);
        size_t taken = field_len + (ampersand != NULL);
        struct field field = {.in_body = in_body};

        if (decode_field(text, field_len, &field)) {
            if (request->field_count == MAX_FIELDS)
                return false;
            request->fields[request->field_count++] = field;
        }
        text += taken;
        len -= taken;
    }
    return true;
}

/* The media type without its parameters. */
static bool has_media_type(const struct request *request, struct span type)
{
    struct span value = request_header(request, SPAN("Content-Type"));
    const char *semicolon = memchr(value.data, ';', value.len);

    if (semicolon != NULL)
        value.len = (size_t)(semicolon - value.data);
    return span_equal_ignoring_case(span_trim(value), type);
}

/* "http://host/path" is a valid target too; returns the length of what precedes the path. */
static size_t authority_length(const char *target, size_t len)
{
    const char *scheme = memmem(target, len, "://", 3);
    const char *path;

    if (target[0] == '/' || scheme == NULL)
        return 0;
    scheme += 3;
    path = memchr(scheme, '/', len - (size_t)(scheme - target));
    return path == NULL ? len : (size_t)(path - target);
}

struct problem request_decode(struct request *request, char *target, char *body, size_t body_len)
{
    size_t skipped = authority_length(target, request->target.len);
    size_t len = request->target.len - skipped;
    char *path = target + skipped;
    char *query = memchr(path, '?', len);
    size_t path_len = query == NULL ? len : (size_t)(query - path);
    size_t query_len = query == NULL ? 0 : len - path_len - 1;
    bool posted = span_equal(request->method, SPAN("POST"))
        || span_equal(request->method, SPAN("PUT")) || span_equal(request->method, SPAN("PATCH"));

    if (path_len > 0 && path[0] != '/' && !span_equal(request->target, SPAN("*")))
        return (struct problem){400, NULL};
    if (!percent_decode(path, &path_len, false))
        return (struct problem){400, NULL};
    request->path = path_len > 0 ? (struct span){path, path_len} : SPAN("/");
    request->body = (struct span){body, body_len};
    request->raw_query = NO_SPAN;
    if (query != NULL) /* with its question mark, and from the copy that stays as it was sent */
        request->raw_query = (struct span){
            request->target.data + request->target.len - query_len - 1, query_len + 1};
    if (posted && has_media_type(request, SPAN("application/x-www-form-urlencoded"))
        && !decode_fields(request, body, body_len, true))
        return (struct problem){400, "too many form fields"};
    if (query != NULL && !decode_fields(request, query + 1, query_len, false))
        return (struct problem){400, "too many query fields"};
    return NO_PROBLEM;
}

struct span request_query(const struct request *request, const char *name)
{
    for (int i = 0; i < request->field_count; i++)
        if (!request->fields[i].in_body && span_equal(request->fields[i].name, span_of(name)))
            return request->fields[i].value;
    return NO_SPAN;
}

/* The parameter of a header value like `form-data; name="file"`; false when it is missing. */
static bool header_parameter(struct span header, struct span name, struct span *value)
{
    const char *end = header.data + header.len;
    const char *at = memchr(header.data, ';', header.len);

    while (at != NULL) {
        struct span parameter = {at + 1, (size_t)(end - at - 1)};
        const char *next = memchr(parameter.data, ';', parameter.len);
        const char *equals = memchr(parameter.data, '=', parameter.len);

        if (equals == NULL)
            return false;
        value->data = equals + 1;
        value->len = (size_t)(end - value->data);
        if (value->len > 0 && *value->data == '"') {
            const char *quote = memchr(++value->data, '"', --value->len);

            if (quote == NULL)
                return false;
            value->len = (size_t)(quote - value->data);
            next = memchr(quote, ';', (size_t)(end - quote));
        } else if (next != NULL && next > equals) {
            value->len = (size_t)(next - value->data);
        }
        parameter.len = (size_t)(equals - parameter.data);
        if (span_equal_ignoring_case(span_trim(parameter), name))
            return true;
        at = next;
    }
    return false;
}

/* Whether a part's head describes the field `name`, as a file or as a plain value. */
static bool part_is(struct span head, const char *name, bool file)
{
    struct span rest = head;

    while (rest.len > 0) {
        const char *line_end = memchr(rest.data, '\n', rest.len);
        size_t len = line_end == NULL ? rest.len : (size_t)(line_end - rest.data) + 1;
        struct span line = span_trim((struct span){rest.data, len});
        struct span prefix = SPAN("Content-Disposition:");
        struct span value;

        rest.data += len;
        rest.len -= len;
        if (line.len < prefix.len
            || !span_equal_ignoring_case((struct span){line.data, prefix.len}, prefix))
            continue;
        if (!header_parameter(line, SPAN("name"), &value) || !span_equal(value, span_of(name)))
            return false;
        return (header_parameter(line, SPAN("filename"), &value) && value.len > 0) == file;
    }
    return false;
}

/* What stands behind the first delimiter, which at the very start lacks its line end. */
static const char *first_part(struct span body, struct span delimiter)
{
    struct span at_start = {delimiter.data + 2, delimiter.len - 2};
    const char *found;

    if (body.len >= at_start.len && memcmp(body.data, at_start.data, at_start.len) == 0)
        return body.data + at_start.len;
    found = memmem(body.data, body.len, delimiter.data, delimiter.len);
    return found == NULL ? NULL : found + delimiter.len;
}

/* Looks through the parts of a multipart body, RFC 2046 section 5.1. A part that is cut off does
 * not count. */
static bool find_part(struct span body, struct span delimiter, const char *name, bool file,
                      struct span *content)
{
    const char *end = body.data + body.len;
    const char *head = first_part(body, delimiter);

    while (head != NULL && head < end && *head != '-') {
        const char *blank = memmem(head, (size_t)(end - head), "\r\n\r\n", 4);
        const char *next;

        if (blank == NULL)
            return false;
        /* The content may be empty: then its line end is also the delimiter's. */
        next = memmem(blank + 2, (size_t)(end - blank) - 2, delimiter.data, delimiter.len);
        if (next == NULL)
            return false;
        if (part_is((struct span){head, (size_t)(blank - head) + 2}, name, file)) {
            const char *start = blank + 4;

            *content = start < next ? (struct span){start, (size_t)(next - start)} : NO_SPAN;
            return true;
        }
        head = next + delimiter.len;
    }
    return false;
}

static bool multipart_find(const struct request *request, const char *name, bool file,
                           struct span *content)
{
    struct span type = request_header(request, SPAN("Content-Type"));
    struct buffer delimiter = {0};
    struct span boundary;
    bool found;

    if (!has_media_type(request, SPAN("multipart/form-data"))
        || !header_parameter(type, SPAN("boundary"), &boundary) || boundary.len == 0)
        return false;
    buffer_text(&delimiter, "\r\n--");
    buffer_span(&delimiter, boundary);
    found = find_part(request->body, span_of_buffer(&delimiter), name, file, content);
    buffer_free(&delimiter);
    return found;
}

struct span request_form(const struct request *request, const char *name)
{
    struct span value = NO_SPAN;

    for (int i = 0; i < request->field_count; i++)
        if (span_equal(request->fields[i].name, span_of(name)))
            return request->fields[i].value;
    if (multipart_find(request, name, false, &value))
        return value;
    return NO_SPAN;
}

bool request_file(const struct request *request, const char *name, struct span *content)
{
    return multipart_find(request, name, true, content);
}
