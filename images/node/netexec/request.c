/* The head of a request, and where its body ends. RFC 9112, with the leniencies of Go's net/http:
 * a bare line feed ends a line. */

#include "request.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define BAD_REQUEST(detail) ((struct problem){400, detail})

size_t request_head_length(struct span input, size_t *scanned)
{
    size_t i = *scanned;

    while (i < input.len) {
        const char *line_end = memchr(input.data + i, '\n', input.len - i);

        if (line_end == NULL) {
            i = input.len;
            break;
        }
        i = (size_t)(line_end - input.data);
        if (i + 1 < input.len && input.data[i + 1] == '\n')
            return i + 2;
        if (i + 2 < input.len && input.data[i + 1] == '\r' && input.data[i + 2] == '\n')
            return i + 3;
        if (i + 2 >= input.len)
            break; /* look at this line feed again when more has come */
        i++;
    }
    *scanned = i;
    return 0;
}

static bool is_token(struct span text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!isalnum((unsigned char)text.data[i])
            && (text.data[i] == '\0' || strchr("!#$%&'*+-.^_`|~", text.data[i]) == NULL))
            return false;
    return text.len > 0;
}

/* Cuts the first line off `*rest` and returns it without its line end. */
static struct span take_line(struct span *rest)
{
    const char *end = memchr(rest->data, '\n', rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
    struct span line = {rest->data, len};
    size_t taken = len + (end != NULL);

    rest->data += taken;
    rest->len -= taken;
    if (line.len > 0 && line.data[line.len - 1] == '\r')
        line.len--;
    return line;
}

/* Cuts `*rest` at the first `separator` and returns what is before; false if there is none. */
static bool take_until(struct span *rest, char separator, struct span *before)
{
    const char *end = memchr(rest->data, separator, rest->len);

    if (end == NULL)
        return false;
    *before = (struct span){rest->data, (size_t)(end - rest->data)};
    rest->len -= before->len + 1;
    rest->data = end + 1;
    return true;
}

static struct problem parse_version(struct request *request, struct span version)
{
    if (version.len != 8 || memcmp(version.data, "HTTP/", 5) != 0
        || !isdigit((unsigned char)version.data[5]) || version.data[6] != '.'
        || !isdigit((unsigned char)version.data[7]))
        return BAD_REQUEST(NULL);
    if (version.data[5] != '1')
        return (struct problem){505, "unsupported protocol version"};
    request->http_1_0 = version.data[7] == '0';
    return NO_PROBLEM;
}

static struct problem parse_request_line(struct request *request, struct span line)
{
    if (!take_until(&line, ' ', &request->method) || !take_until(&line, ' ', &request->target))
        return BAD_REQUEST(NULL);
    if (!is_token(request->method) || request->target.len == 0)
        return BAD_REQUEST(NULL);
    for (size_t i = 0; i < request->target.len; i++)
        if (iscntrl((unsigned char)request->target.data[i]))
            return BAD_REQUEST(NULL);
    return parse_version(request, line);
}

static struct problem parse_header(struct request *request, struct span line)
{
    struct header header;

    if (request->header_count == MAX_HEADERS)
        return (struct problem){431, NULL};
    if (!take_until(&line, ':', &header.name) || !is_token(header.name))
        return BAD_REQUEST(NULL);
    header.value = span_trim(line);
    for (size_t i = 0; i < header.value.len; i++)
        if (iscntrl((unsigned char)header.value.data[i]) && header.value.data[i] != '\t')
            return BAD_REQUEST("invalid header value");
    request->headers[request->header_count++] = header;
    return NO_PROBLEM;
}

struct span request_header(const struct request *request, struct span name)
{
    for (int i = 0; i < request->header_count; i++)
        if (span_equal_ignoring_case(request->headers[i].name, name))
            return request->headers[i].value;
    return NO_SPAN;
}

/* Whether the comma-separated header has that word. */
static bool header_has(const struct request *request, struct span name, struct span word)
{
    for (int i = 0; i < request->header_count; i++) {
        struct span rest = request->headers[i].value;
        struct span item;

        if (!span_equal_ignoring_case(request->headers[i].name, name))
            continue;
        while (take_until(&rest, ',', &item))
            if (span_equal_ignoring_case(span_trim(item), word))
                return true;
        if (span_equal_ignoring_case(span_trim(rest), word))
            return true;
    }
    return false;
}

static struct problem parse_host(const struct request *request)
{
    int hosts = 0;

    for (int i = 0; i < request->header_count; i++)
        hosts += span_equal_ignoring_case(request->headers[i].name, SPAN("Host"));
    if (hosts == 0 && !request->http_1_0)
        return BAD_REQUEST("missing required Host header");
    if (hosts > 1)
        return BAD_REQUEST("too many Host headers");
    return NO_PROBLEM;
}

static struct problem parse_content_length(struct request *request)
{
    struct span first = request_header(request, SPAN("Content-Length"));

    for (int i = 0; i < request->header_count; i++)
        if (span_equal_ignoring_case(request->headers[i].name, SPAN("Content-Length"))
            && (!span_equal(request->headers[i].value, first) || first.len == 0))
            return BAD_REQUEST(NULL);
    for (size_t i = 0; i < first.len; i++) {
        if (!isdigit((unsigned char)first.data[i]))
            return BAD_REQUEST(NULL);
        request->content_length = request->content_length * 10 + (size_t)(first.data[i] - '0');
        if (request->content_length > LENGTH_CEILING)
            request->content_length = LENGTH_CEILING;
    }
    return NO_PROBLEM;
}

static struct problem parse_framing(struct request *request)
{
    struct span encoding = request_header(request, SPAN("Transfer-Encoding"));
    struct span expectation = request_header(request, SPAN("Expect"));

    if (encoding.len > 0 && !request->http_1_0) {
        if (!span_equal_ignoring_case(encoding, SPAN("chunked")))
            return (struct problem){501, "Unsupported transfer encoding"};
        request->chunked = true;
    }
    if (expectation.len > 0 && !request->http_1_0) {
        if (!span_equal_ignoring_case(expectation, SPAN("100-continue")))
            return (struct problem){417, NULL};
        request->expects_continue = true;
    }
    if (request->http_1_0)
        request->keep_alive = header_has(request, SPAN("Connection"), SPAN("keep-alive"));
    else
        request->keep_alive = !header_has(request, SPAN("Connection"), SPAN("close"));
    return NO_PROBLEM;
}

struct problem request_parse_headers(struct request *request, struct span lines)
{
    struct problem problem = NO_PROBLEM;

    while (problem.status == 0 && lines.len > 0) {
        struct span line = take_line(&lines);

        if (line.len == 0)
            break;
        problem = parse_header(request, line);
    }
    return problem.status != 0 ? problem : parse_content_length(request);
}

struct problem request_parse_head(struct request *request, struct span head)
{
    struct problem problem = parse_request_line(request, take_line(&head));

    if (problem.status == 0)
        problem = request_parse_headers(request, head);
    if (problem.status == 0)
        problem = parse_host(request);
    return problem.status != 0 ? problem : parse_framing(request);
}
