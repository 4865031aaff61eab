#include "netexec.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options options = {
    .http_port = 8080,
    .udp_port = 8081,
    .sctp_port = -1,
    .udp_listen_addresses = "",
    .idle_timeout = 300 * 1000,
    .upload_dir = "/uploads",
};

static const char usage[] =
    "usage: netexec [netexec] [flags]\n"
    "\n"
    "Answers over HTTP, UDP and SCTP as agnhost's netexec does.\n"
    "\n"
    "  --http-port int                 HTTP port (default 8080)\n"
    "  --udp-port int                  UDP port, -1 for none (default 8081)\n"
    "  --sctp-port int                 SCTP port, -1 for none (default -1)\n"
    "  --http-override string          answer every HTTP request like a GET of this path\n"
    "  --udp-listen-addresses string   comma-separated addresses of the UDP servers\n"
    "  --delay-shutdown int            seconds between SIGTERM and the end (default 0)\n"
    "  --tls-cert-file string          refused: this netexec has no TLS\n"
    "  --tls-private-key-file string   refused: this netexec has no TLS\n"
    "\n"
    "Not in agnhost:\n"
    "  --idle-timeout duration         close idle connections, 0 for never (default 5m)\n"
    "  --upload-dir string             where /upload stores files (default /uploads)\n";

static void __attribute__((noreturn)) wrong_usage(const char *flag, const char *problem)
{
    fprintf(stderr, "netexec: %s: %s\n\n%s", flag, problem, usage);
    exit(2);
}

static int number(const char *flag, const char *value, long least, long most, const char *expected)
{
    long result;

    if (parse_integer(span_of(value), &result) != NULL || result < least || result > most)
        wrong_usage(flag, expected);
    return (int)result;
}

/* A port, or -1 for no server. Zero has no meaning: nobody could tell which port it became. */
static int optional_port(const char *flag, const char *value)
{
    int port = number(flag, value, -1, 65535, "expected a port, 1 to 65535, or -1 for none");

    if (port == 0)
        wrong_usage(flag, "expected a port, 1 to 65535, or -1 for none");
    return port;
}

static const char *addresses(const char *flag, const char *value)
{
    const char *at = value;

    while (*at != '\0') {
        size_t len = strcspn(at, ",");
        char *address = span_copy((struct span){at, len});
        struct in6_addr parsed;
        bool valid = inet_pton(AF_INET, address, &parsed) == 1
            || inet_pton(AF_INET6, address, &parsed) == 1;

        free(address);
        if (!valid || (at[len] == ',' && at[len + 1] == '\0'))
            wrong_usage(flag, "expected comma-separated IP addresses");
        at += len + (at[len] == ',');
    }
    return value;
}

static int64_t milliseconds(const char *flag, const char *value)
{
    int64_t nanoseconds;

    if (!parse_duration(span_of(value), &nanoseconds) || nanoseconds < 0)
        wrong_usage(flag, "expected a duration like 90s or 0");
    return nanoseconds / 1000000 + (nanoseconds % 1000000 > 0);
}

static const char *override_path(const char *flag, const char *value)
{
    if (*value != '\0' && *value != '/')
        wrong_usage(flag, "expected a path that starts with a slash");
    return *value == '\0' ? NULL : value;
}

static void apply(const char *flag, const char *value)
{
    if (strcmp(flag, "--http-port") == 0)
        options.http_port = number(flag, value, 1, 65535, "expected a port, 1 to 65535");
    else if (strcmp(flag, "--udp-port") == 0)
        options.udp_port = optional_port(flag, value);
    else if (strcmp(flag, "--sctp-port") == 0)
        options.sctp_port = optional_port(flag, value);
    else if (strcmp(flag, "--http-override") == 0)
        options.http_override = override_path(flag, value);
    else if (strcmp(flag, "--udp-listen-addresses") == 0)
        options.udp_listen_addresses = addresses(flag, value);
    else if (strcmp(flag, "--delay-shutdown") == 0)
        options.delay_shutdown = number(flag, value, 0, 86400, "expected seconds, 0 to 86400");
    else if (strcmp(flag, "--idle-timeout") == 0)
        options.idle_timeout = milliseconds(flag, value);
    else if (strcmp(flag, "--upload-dir") == 0)
        options.upload_dir = value;
    else if (*value != '\0')
        wrong_usage(flag, "this netexec has no TLS, it serves plain HTTP only");
}

static bool is_flag(const char *flag)
{
    static const char *const flags[] = {
        "--http-port", "--udp-port", "--sctp-port", "--http-override", "--udp-listen-addresses",
        "--delay-shutdown", "--tls-cert-file", "--tls-private-key-file", "--idle-timeout",
        "--upload-dir",
    };

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (strcmp(flag, flags[i]) == 0)
            return true;
    return false;
}

void options_parse(int argc, char **argv)
{
    /* agnhost is called "agnhost netexec …". */
    int i = argc > 1 && strcmp(argv[1], "netexec") == 0 ? 2 : 1;

    for (; i < argc; i++) {
        size_t len = strcspn(argv[i], "=");
        char *flag = span_copy((struct span){argv[i], len}); /* argv stays: ps shows it */
        const char *value = argv[i][len] == '=' ? argv[i] + len + 1 : NULL;

        if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        if (flag[0] != '-')
            wrong_usage(flag, "unexpected argument");
        if (!is_flag(flag))
            wrong_usage(flag, "unknown flag");
        if (value == NULL)
            value = argv[++i];
        if (value == NULL)
            wrong_usage(flag, "flag needs an argument");
        apply(flag, value);
        free(flag);
    }
}
