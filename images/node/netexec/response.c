#include "netexec.h"

#include <string.h>
#include <time.h>

const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {100, "Continue"}, {101, "Switching Protocols"}, {102, "Processing"}, {103, "Early Hints"},
        {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {203, "Non-Authoritative Information"},
        {204, "No Content"}, {205, "Reset Content"}, {206, "Partial Content"},
        {207, "Multi-Status"}, {208, "Already Reported"}, {226, "IM Used"},
        {300, "Multiple Choices"}, {301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"},
        {304, "Not Modified"}, {305, "Use Proxy"}, {307, "Temporary Redirect"},
        {308, "Permanent Redirect"}, {400, "Bad Request"}, {401, "Unauthorized"},
        {402, "Payment Required"}, {403, "Forbidden"}, {404, "Not Found"},
        {405, "Method Not Allowed"}, {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"}, {408, "Request Timeout"}, {409, "Conflict"},
        {410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"},
        {413, "Request Entity Too Large"}, {414, "Request URI Too Long"},
        {415, "Unsupported Media Type"}, {416, "Requested Range Not Satisfiable"},
        {417, "Expectation Failed"}, {418, "I'm a teapot"}, {421, "Misdirected Request"},
        {422, "Unprocessable Entity"}, {423, "Locked"}, {424, "Failed Dependency"},
        {425, "Too Early"}, {426, "Upgrade Required"}, {428, "Precondition Required"},
        {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"}, {500, "Internal Server Error"},
        {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
        {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"},
        {506, "Variant Also Negotiates"}, {507, "Insufficient Storage"}, {508, "Loop Detected"},
        {510, "Not Extended"}, {511, "Network Authentication Required"},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "";
}

static void status_line(struct buffer *out, int status, bool http_1_0)
{
    const char *text = status_text(status);

    buffer_printf(out, "HTTP/1.%d %03d ", http_1_0 ? 0 : 1, status);
    if (*text != '\0')
        buffer_printf(out, "%s\r\n", text);
    else
        buffer_printf(out, "status code %d\r\n", status);
}

static void date_header(struct buffer *out)
{
    char text[64];
    time_t now = time(NULL);
    struct tm utc;

    gmtime_r(&now, &utc);
    strftime(text, sizeof(text), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
    buffer_text(out, text);
}

void response_write(struct buffer *out, const struct response *response, struct shape shape)
{
    int status = response->status;
    bool has_body;

    if (status >= 100 && status <= 199 && status != 101) {
        /* An informational status precedes the final one. */
        status_line(out, status, shape.http_1_0);
        buffer_text(out, "\r\n");
        status = 200;
    }
    has_body = status >= 200 && status != 204 && status != 304;
    status_line(out, status, shape.http_1_0);
    if (shape.close && !shape.http_1_0)
        buffer_text(out, "Connection: close\r\n");
    if (!shape.close && shape.http_1_0)
        buffer_text(out, "Connection: keep-alive\r\n");
    if (has_body && (response->body.len > 0 || response->content_type != NULL))
        buffer_printf(out, "Content-Type: %s\r\n",
                      response->content_type ? response->content_type
                                             : "text/plain; charset=utf-8");
    if (response->location != NULL)
        buffer_printf(out, "Location: %s\r\n", response->location);
    if (response->nosniff)
        buffer_text(out, "X-Content-Type-Options: nosniff\r\n");
    date_header(out);
    if (has_body)
        buffer_printf(out, "Content-Length: %zu\r\n", response->body.len);
    buffer_text(out, "\r\n");
    if (has_body && !shape.head_only)
        buffer_span(out, response->body);
}
