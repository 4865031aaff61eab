#include "netexec.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* PIPE_BUF: as long as poll() finds room, a write up to this length does not block. */
#define MAX_LINE 4096

void log_line(const char *format, ...)
{
    static char line[MAX_LINE];
    struct pollfd room = {.fd = STDOUT_FILENO, .events = POLLOUT};
    va_list arguments;
    size_t len;
    ssize_t written;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    len = strlen(line);
    /* A request must not be able to forge a line of the log. */
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[len++] = '\n';
    if (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT)) {
        written = write(STDOUT_FILENO, line, len);
        (void)written; /* whoever read the log is gone */
    }
}

void die(const char *format, ...)
{
    va_list arguments;

    fputs("netexec: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs("\n", stderr);
    exit(1);
}
