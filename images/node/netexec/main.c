/*
 * netexec: the application of a test pod. It answers as agnhost's netexec does, the server of
 * Kubernetes' own network tests (kubernetes/kubernetes, test/images/agnhost/netexec), in a
 * fraction of its memory, so that a thousand pods fit on a machine.
 *
 *   options.c     flags                    lifecycle.c  signals and ends, /exit
 *   loop.c        epoll, timers            jobs.c       /shell and /dial: work in a child
 *   listen.c      sockets                  dial.c       what a /dial child does …
 *   server.c      HTTP connections         dial_http.c  … over HTTP
 *   connection.c  one HTTP connection      datagram.c   UDP and SCTP servers
 *   request.c     head of a request        text.c       slices and buffers
 *   chunked.c     chunked bodies           golang.c     values as Go writes them
 *   form.c url.c  fields, files, escapes   log.c        stdout and stderr
 *   response.c    bytes of an answer       endpoints.c, redirect.c, upload.c
 *
 * Different from agnhost, on purpose: no TLS, bodies up to 8 MiB, heads up to 64 KiB, an idle
 * timeout, usage errors exit with status 2, logs go to stdout without a time.
 */

#include "netexec.h"

int main(int argc, char **argv)
{
    static loop_timer *const timers[] = {http_timer, lifecycle_timer, NULL};

    options_parse(argc, argv);
    loop_open();
    lifecycle_open();
    if (options.udp_port != -1)
        udp_listen(options.udp_port, options.udp_listen_addresses);
    if (options.sctp_port != -1)
        sctp_listen(options.sctp_port);
    http_listen(options.http_port);
    loop_run(timers);
}
