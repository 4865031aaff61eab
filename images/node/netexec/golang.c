/* Go's ways of writing values down and reading them; see text.h. */

#include "text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static void json_ascii(struct buffer *out, char c)
{
    static const char short_forms[] = "\"\"\\\\\nn\rr\tt\bb\ff";

    for (const char *form = short_forms; *form != '\0'; form += 2) {
        if (*form == c) {
            buffer_printf(out, "\\%c", form[1]);
            return;
        }
    }
    if (c < 0x20 || c == '<' || c == '>' || c == '&')
        buffer_printf(out, "\\u%04x", c);
    else
        buffer_append(out, &c, 1);
}

void json_string(struct buffer *out, struct span text)
{
    buffer_text(out, "\"");
    while (text.len > 0) {
        size_t len = utf8_length(text);

        if (len == 1)
            json_ascii(out, text.data[0]);
        else if (len == 0)
            buffer_text(out, "\\ufffd");
        else if (len == 3 && memcmp(text.data, "\xe2\x80", 2) == 0 && (text.data[2] & ~1) == '\xa8')
            buffer_printf(out, "\\u202%d", text.data[2] & 0xf);
        else
            buffer_append(out, text.data, len);
        text.data += len ? len : 1;
        text.len -= len ? len : 1;
    }
    buffer_text(out, "\"");
}

static void quote_ascii(struct buffer *out, unsigned char c)
{
    static const char short_forms[] = "\"\"\\\\\aa\bb\ff\nn\rr\tt\vv";

    for (const char *form = short_forms; *form != '\0'; form += 2) {
        if ((unsigned char)*form == c) {
            buffer_printf(out, "\\%c", form[1]);
            return;
        }
    }
    buffer_printf(out, c < 0x20 || c >= 0x7f ? "\\x%02x" : "%c", c);
}

void go_quote(struct buffer *out, struct span text)
{
    buffer_text(out, "\"");
    while (text.len > 0) {
        size_t len = utf8_length(text);

        if (len > 1)
            buffer_append(out, text.data, len);
        else
            quote_ascii(out, (unsigned char)text.data[0]);
        text.data += len ? len : 1;
        text.len -= len ? len : 1;
    }
    buffer_text(out, "\"");
}

const char *errno_text(int error)
{
    static const struct {
        int error;
        const char *text;
    } texts[] = {
        {EACCES, "permission denied"},
        {EADDRINUSE, "address already in use"},
        {EADDRNOTAVAIL, "cannot assign requested address"},
        {EAFNOSUPPORT, "address family not supported by protocol"},
        {ECONNABORTED, "software caused connection abort"},
        {ECONNREFUSED, "connection refused"},
        {ECONNRESET, "connection reset by peer"},
        {EHOSTDOWN, "host is down"},
        {EHOSTUNREACH, "no route to host"},
        {EINVAL, "invalid argument"},
        {EMSGSIZE, "message too long"},
        {ENETUNREACH, "network is unreachable"},
        {ENOENT, "no such file or directory"},
        {EPERM, "operation not permitted"},
        {EPIPE, "broken pipe"},
        {EPROTONOSUPPORT, "protocol not supported"},
        {ETIMEDOUT, "connection timed out"},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].error == error)
            return texts[i].text;
    return strerror(error);
}

const char *parse_integer(struct span text, long *value)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    size_t start = text.len > 0 && (text.data[0] == '-' || text.data[0] == '+');
    bool overflow = false;
    long result = 0;

    if (start == text.len)
        return "invalid syntax";
    for (size_t i = start; i < text.len; i++) {
        if (!isdigit((unsigned char)text.data[i]))
            return "invalid syntax";
        /* Counted downwards: the range is larger there. */
        overflow |= __builtin_mul_overflow(result, 10, &result);
        overflow |= __builtin_sub_overflow(result, text.data[i] - '0', &result);
    }
    if (overflow || (!negative && result == LONG_MIN))
        return "value out of range";
    *value = negative ? result : -result;
    return NULL;
}

/* The unit that `text` starts with, in nanoseconds; 0 if it is none. Cuts it off. */
static double take_unit(struct span *text)
{
    static const struct {
        const char *name;
        double nanoseconds;
    } units[] = {
        {"ns", 1}, {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3},
        {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9},
    };
    size_t len = 0;

    while (len < text->len && text->data[len] != '.' && !isdigit((unsigned char)text->data[len]))
        len++;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (span_equal((struct span){text->data, len}, span_of(units[i].name))) {
            text->data += len;
            text->len -= len;
            return units[i].nanoseconds;
        }
    }
    return 0;
}

/* The decimal number that `text` starts with; false if there is no digit. Cuts it off. */
static bool take_number(struct span *text, double *number)
{
    bool digits = false;
    double scale = 0;

    *number = 0;
    for (; text->len > 0; text->data++, text->len--) {
        if (*text->data == '.' && scale == 0) {
            scale = 1;
            continue;
        }
        if (!isdigit((unsigned char)*text->data))
            break;
        digits = true;
        *number = *number * 10 + (*text->data - '0');
        scale *= 10;
    }
    if (scale > 1)
        *number /= scale;
    return digits;
}

bool parse_duration(struct span text, int64_t *nanoseconds)
{
    double total = 0;
    double sign = 1;

    if (text.len > 0 && (text.data[0] == '-' || text.data[0] == '+')) {
        sign = text.data[0] == '-' ? -1 : 1;
        text.data++;
        text.len--;
    }
    if (text.len == 0)
        return false;
    if (span_equal(text, SPAN("0"))) {
        *nanoseconds = 0;
        return true;
    }
    while (text.len > 0) {
        double number;
        double unit;

        if (!take_number(&text, &number) || (unit = take_unit(&text)) == 0)
            return false;
        total += number * unit;
    }
    if (total >= 9.2e18)
        return false;
    *nanoseconds = (int64_t)(sign * total);
    return true;
}

static void ipv6_text(const struct sockaddr_in6 *address, char text[ADDRESS_TEXT_SIZE])
{
    char host[INET6_ADDRSTRLEN] = "";
    char zone[IF_NAMESIZE] = "";
    int port = ntohs(address->sin6_port);

    if (IN6_IS_ADDR_V4MAPPED(&address->sin6_addr)) {
        inet_ntop(AF_INET, &address->sin6_addr.s6_addr[12], host, sizeof(host));
        snprintf(text, ADDRESS_TEXT_SIZE, "%s:%d", host, port);
        return;
    }
    inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof(host));
    if (address->sin6_scope_id != 0 && if_indextoname(address->sin6_scope_id, zone) != NULL)
        snprintf(text, ADDRESS_TEXT_SIZE, "[%s%%%s]:%d", host, zone, port);
    else
        snprintf(text, ADDRESS_TEXT_SIZE, "[%s]:%d", host, port);
}

void address_text(const struct sockaddr_storage *address, char text[ADDRESS_TEXT_SIZE])
{
    char host[INET_ADDRSTRLEN] = "";
    const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)address;

    text[0] = '\0';
    if (address->ss_family == AF_INET6) {
        ipv6_text((const struct sockaddr_in6 *)address, text);
    } else if (address->ss_family == AF_INET) {
        inet_ntop(AF_INET, &ipv4->sin_addr, host, sizeof(host));
        snprintf(text, ADDRESS_TEXT_SIZE, "%s:%d", host, ntohs(ipv4->sin_port));
    }
}
