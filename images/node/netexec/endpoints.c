/* The endpoints of agnhost's netexec that answer at once (kubernetes/kubernetes,
 * test/images/agnhost/netexec): same bodies, same statuses, same log lines. */

#include "netexec.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct timespec started;

static void __attribute__((constructor)) note_start(void)
{
    clock_gettime(CLOCK_MONOTONIC, &started);
}

struct span host_name(void)
{
    static char name[256];

    if (gethostname(name, sizeof(name) - 1) < 0)
        name[0] = '\0';
    return span_of(name);
}

void respond_text(struct connection *connection, int status, struct span body)
{
    struct response response = {.status = status, .body = body};

    connection_respond(connection, &response);
}

void respond_error(struct connection *connection, int status, const char *format, ...)
{
    static char text[4096];
    struct response response = {.status = status, .nosniff = true};
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text) - 1, format, arguments);
    va_end(arguments);
    strcat(text, "\n");
    response.body = span_of(text);
    connection_respond(connection, &response);
}

/* Go's time.Now() as text: "2006-01-02 15:04:05.123456789 +0000 UTC m=+1.000000001". */
static void root_endpoint(struct connection *connection, struct request *request)
{
    struct buffer text = {0};
    struct timespec wall;
    struct timespec monotonic;
    struct tm local;
    char part[64];
    long long since;

    (void)request;
    log_line("GET /");
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    localtime_r(&wall.tv_sec, &local);
    strftime(part, sizeof(part), "%Y-%m-%d %H:%M:%S", &local);
    buffer_printf(&text, "NOW: %s.%09ld", part, wall.tv_nsec);
    while (text.data[text.len - 1] == '0')
        text.len--;
    if (text.data[text.len - 1] == '.')
        text.len--;
    strftime(part, sizeof(part), " %z %Z", &local);
    since = (monotonic.tv_sec - started.tv_sec) * 1000000000LL + monotonic.tv_nsec
        - started.tv_nsec;
    buffer_printf(&text, "%s m=+%lld.%09lld", part, since / 1000000000, since % 1000000000);
    respond_text(connection, 200, span_of_buffer(&text));
    buffer_free(&text);
}

static void client_ip_endpoint(struct connection *connection, struct request *request)
{
    log_line("GET /clientip");
    respond_text(connection, 200, span_of(request->client));
}

static void hostname_endpoint(struct connection *connection, struct request *request)
{
    log_line("GET %.*s", SPAN_ARGS(request->path));
    respond_text(connection, 200, host_name());
}

static void healthz_endpoint(struct connection *connection, struct request *request)
{
    (void)request;
    log_line("GET /healthz");
    respond_text(connection, datagram_ready() ? 200 : 412, NO_SPAN);
}

static void readyz_endpoint(struct connection *connection, struct request *request)
{
    (void)request;
    log_line("GET /readyz");
    if (lifecycle_terminating())
        respond_text(connection, 503, SPAN("shutting down"));
    else if (datagram_ready())
        respond_text(connection, 200, SPAN("ok"));
    else
        respond_text(connection, 412, NO_SPAN);
}

static void echo_endpoint(struct connection *connection, struct request *request)
{
    struct span msg = request_form(request, "msg");
    struct span code = request_form(request, "code");
    struct buffer text = {0};
    long status = 200;

    log_line("GET /echo?msg=%.*s&code=%.*s", SPAN_ARGS(msg), SPAN_ARGS(code));
    if (code.len > 0 && parse_integer(code, &status) != NULL) {
        buffer_text(&text, "argument 'code' must be an integer or empty, got ");
        go_quote(&text, code);
        buffer_text(&text, "\n");
        msg = span_of_buffer(&text);
        status = 200;
    }
    respond_text(connection, status < 0 || status > 999 ? 0 : (int)status, msg);
    buffer_free(&text);
}

/* "X-Forwarded-For" from any spelling, as Go's textproto has it. */
static struct span canonical(char *name, size_t len)
{
    bool upper = true;

    for (size_t i = 0; i < len; i++) {
        name[i] = (char)(upper ? toupper((unsigned char)name[i]) : tolower((unsigned char)name[i]));
        upper = name[i] == '-';
    }
    return (struct span){name, len};
}

static int compare_headers(const void *a, const void *b)
{
    const struct header *x = a;
    const struct header *y = b;
    size_t len = x->name.len < y->name.len ? x->name.len : y->name.len;
    int order = memcmp(x->name.data, y->name.data, len);

    if (order == 0)
        order = (x->name.len > y->name.len) - (x->name.len < y->name.len);
    /* qsort is not stable; values of one name stay in the order they came in. */
    if (order == 0)
        order = (x->value.data > y->value.data) - (x->value.data < y->value.data);
    return order;
}

/* All headers as JSON, {"User-Agent":["curl"]}; Go keeps Host and Transfer-Encoding elsewhere. */
static void headers_json(struct buffer *out, struct request *request)
{
    struct header *headers = request->headers;
    int written = 0;

    for (int i = 0; i < request->header_count; i++) {
        /* The name lies in the connection's input, which nobody reads again. */
        headers[i].name = canonical((char *)headers[i].name.data, headers[i].name.len);
    }
    qsort(headers, (size_t)request->header_count, sizeof(headers[0]), compare_headers);
    buffer_text(out, "{");
    for (int i = 0; i < request->header_count; i++) {
        if (span_equal(headers[i].name, SPAN("Host"))
            || span_equal(headers[i].name, SPAN("Transfer-Encoding")))
            continue;
        if (written > 0 && span_equal(headers[i].name, headers[i - 1].name)) {
            out->len--; /* one more value: reopen the list */
            buffer_text(out, ",");
        } else {
            buffer_text(out, written > 0 ? "," : "");
            json_string(out, headers[i].name);
            buffer_text(out, ":[");
        }
        json_string(out, headers[i].value);
        buffer_text(out, "]");
        written++;
    }
    buffer_text(out, "}");
}

static void header_endpoint(struct connection *connection, struct request *request)
{
    struct span key = request_form(request, "key");
    struct buffer text = {0};

    if (key.len > 0) {
        log_line("GET /header?key=%.*s", SPAN_ARGS(key));
        respond_text(connection, 200,
                     span_equal_ignoring_case(key, SPAN("Host")) ? NO_SPAN
                                                                 : request_header(request, key));
        return;
    }
    log_line("GET /header");
    headers_json(&text, request);
    respond_text(connection, 200, span_of_buffer(&text));
    buffer_free(&text);
}

static void shutdown_endpoint(struct connection *connection, struct request *request)
{
    (void)connection;
    (void)request;
    log_line("GET /shutdown");
    exit(0);
}

/* Anything else is answered like "/", as by Go's catch-all pattern. */
static endpoint *find_endpoint(struct span path)
{
    static const struct {
        const char *path;
        endpoint *endpoint;
    } endpoints[] = {
        {"/clientip", client_ip_endpoint}, {"/dial", dial_endpoint}, {"/echo", echo_endpoint},
        {"/exit", exit_endpoint}, {"/header", header_endpoint}, {"/healthz", healthz_endpoint},
        {"/hostName", hostname_endpoint}, {"/hostname", hostname_endpoint},
        {"/readyz", readyz_endpoint}, {"/redirect", redirect_endpoint},
        {"/shell", shell_endpoint}, {"/shutdown", shutdown_endpoint},
        {"/upload", upload_endpoint},
    };

    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++)
        if (span_equal(path, span_of(endpoints[i].path)))
            return endpoints[i].endpoint;
    return root_endpoint;
}

/* Go's ServeMux sends "//hostname" and "/a/../hostname" to the clean path. */
static bool redirect_unclean(struct connection *connection, const struct request *request)
{
    struct buffer clean = {0};
    struct buffer location = {0};
    bool unclean;

    path_clean(&clean, request->path);
    unclean = !span_equal(span_of_buffer(&clean), request->path);
    if (unclean) {
        percent_encode(&location, span_of_buffer(&clean));
        buffer_span(&location, request->raw_query);
        redirect_to(connection, request, span_of_buffer(&location), 301);
    }
    buffer_free(&clean);
    buffer_free(&location);
    return unclean;
}

/* --http-override: whatever was asked, the answer is that to a bare GET of the given path; as in
 * agnhost it knows neither the client nor its headers. */
static void handle_override(struct connection *connection)
{
    struct request request = {
        .method = SPAN("GET"), .target = span_of(options.http_override), .client = ""};
    char *target = span_copy(request.target);
    struct problem problem = request_decode(&request, target, NULL, 0);

    if (problem.status != 0)
        respond_error(connection, 500, "override request failed: parse \"%s\"",
                      options.http_override);
    else if (!redirect_unclean(connection, &request))
        find_endpoint(request.path)(connection, &request);
    free(target);
}

void http_handle(struct connection *connection, struct request *request)
{
    if (span_equal(request->path, SPAN("*")))
        respond_text(connection, span_equal(request->method, SPAN("OPTIONS")) ? 200 : 400, NO_SPAN);
    else if (options.http_override != NULL)
        handle_override(connection);
    else if (!redirect_unclean(connection, request))
        find_endpoint(request->path)(connection, request);
}
