/*
 * The first process of every pod sandbox: it holds the pod's network, IPC and UTS namespaces while
 * the pod's containers come and go, so that the pod keeps its address.
 *
 * Behaves as Kubernetes' pause does (docs: "build/pause" in kubernetes/kubernetes):
 *
 *   -v              prints the version and exits 0
 *   SIGINT, SIGTERM say "Shutting down, got signal: …" on stderr and exit 0
 *   SIGCHLD         reaps every zombie (matters only in a shared PID namespace)
 *   exit 1, 2, 3    the handler for SIGINT, SIGTERM or SIGCHLD could not be installed
 *   exit 42         the endless loop ended, which cannot happen
 *
 * Neither stdio nor malloc is used: a thousand pods pay for every page.
 */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "testbed"
#endif

static void say(int fd, const char *text)
{
    /* Nobody may be reading any more; there is nothing to do about that. */
    ssize_t written = write(fd, text, strlen(text));
    (void)written;
}

static void shut_down(int signal_number)
{
    if (signal_number == SIGINT)
        say(STDERR_FILENO, "Shutting down, got signal: Interrupt\n");
    else
        say(STDERR_FILENO, "Shutting down, got signal: Terminated\n");
    _exit(0);
}

static void reap(int signal_number)
{
    int saved = errno;

    (void)signal_number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    errno = saved;
}

static int on_signal(int signal_number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_flags = flags};

    action.sa_handler = handler;
    return sigaction(signal_number, &action, NULL);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcasecmp(argv[i], "-v") == 0) {
            say(STDOUT_FILENO, "pause.c " VERSION "\n");
            return 0;
        }
    }
    if (getpid() != 1)
        say(STDERR_FILENO, "Warning: pause should be the first process\n");

    if (on_signal(SIGINT, shut_down, 0) < 0)
        return 1;
    if (on_signal(SIGTERM, shut_down, 0) < 0)
        return 2;
    if (on_signal(SIGCHLD, reap, SA_NOCLDSTOP) < 0)
        return 3;
    for (;;)
        pause();
    say(STDERR_FILENO, "Error: infinite loop terminated\n");
    return 42;
}
