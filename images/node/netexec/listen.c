#include "netexec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

static int bound_socket(const struct sockaddr *address, socklen_t len, int type, int protocol,
                        int v6_only)
{
    int fd = socket(address->sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    int on = 1;
    int failed;
    int saved;

    if (fd < 0)
        return -1;
    failed = address->sa_family == AF_INET6
        && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only)) < 0;
    /* For UDP it would let a second server take the port away unnoticed. */
    failed = failed
        || (type == SOCK_STREAM && protocol != IPPROTO_SCTP
            && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0);
    failed = failed || bind(fd, address, len) < 0;
    failed = failed || (type == SOCK_STREAM && listen(fd, SOMAXCONN) < 0);
    if (!failed)
        return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int listen_on(const char *address, int port, int type, int protocol)
{
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd;

    if (address != NULL && inet_pton(AF_INET6, address, &ipv6.sin6_addr) == 1)
        return bound_socket((struct sockaddr *)&ipv6, sizeof(ipv6), type, protocol, 1);
    if (address != NULL && inet_pton(AF_INET, address, &ipv4.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    if (address == NULL) {
        fd = bound_socket((struct sockaddr *)&ipv6, sizeof(ipv6), type, protocol, 0);
        if (fd >= 0 || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL))
            return fd;
    }
    return bound_socket((struct sockaddr *)&ipv4, sizeof(ipv4), type, protocol, 0);
}
