/* /shell and /dial: a child does the work, its standard output is the answer, and the server goes
 * on meanwhile. */

#include "netexec.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_OUTPUT (4 * 1024 * 1024)
#define SHELL "/bin/sh"

struct job {
    struct source source; /* the child's standard output */
    struct job *next;
    struct connection *connection; /* NULL once the client is gone */
    void (*answer)(struct job *job);
    bool useless_alone; /* to be killed when the client is gone */
    pid_t pid;
    bool ended;
    int status;
    bool output_ended;
    bool output_cut;
    struct buffer output;
};

static struct job *jobs;

static void finish_if_complete(struct job *job)
{
    struct job **link = &jobs;

    if (!job->ended || !job->output_ended)
        return;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    if (job->connection != NULL) {
        job->answer(job);
        connection_resume(job->connection);
    }
    buffer_free(&job->output);
    loop_discard(&job->source);
}

static void output_ready(struct source *source, uint32_t events)
{
    static char text[4096];
    struct job *job = (struct job *)source;
    ssize_t count = read(source->fd, text, sizeof(text));
    size_t room = MAX_OUTPUT - job->output.len;

    (void)events;
    if (count < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (count > 0) {
        job->output_cut |= (size_t)count > room;
        buffer_append(&job->output, text, (size_t)count < room ? (size_t)count : room);
        return;
    }
    job->output_ended = true;
    loop_watch(source, 0);
    finish_if_complete(job);
}

void jobs_child_ended(int pid, int status)
{
    for (struct job *job = jobs; job != NULL; job = job->next) {
        if (job->pid == pid) {
            job->ended = true;
            job->status = status;
            finish_if_complete(job);
            return;
        }
    }
}

static void abandon(void *owner)
{
    struct job *job = owner;

    job->connection = NULL;
    if (job->useless_alone && !job->ended)
        kill(job->pid, SIGKILL);
}

/* The child keeps nothing of the server: a copy of a connection would keep it open. */
static void become_child(int output)
{
    int nothing = open("/dev/null", O_RDONLY);

    lifecycle_release_signals();
    dup2(nothing, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    if (syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0) < 0)
        for (int fd = STDERR_FILENO + 1; fd < (int)sysconf(_SC_OPEN_MAX); fd++)
            close(fd);
}

/* Forks. Returns the job in the parent and NULL in the child. A failure is answered. */
static struct job *start(struct connection *connection, void (*answer)(struct job *), bool *child)
{
    struct job *job = calloc(1, sizeof(*job));
    int ends[2];

    *child = false;
    if (job == NULL || pipe2(ends, O_CLOEXEC) < 0) {
        free(job);
        respond_error(connection, 500, "pipe: %s", errno_text(errno));
        return NULL;
    }
    job->pid = fork();
    if (job->pid == 0) {
        become_child(ends[1]);
        free(job);
        *child = true;
        return NULL;
    }
    close(ends[1]);
    if (job->pid < 0) {
        close(ends[0]);
        free(job);
        respond_error(connection, 500, "fork: %s", errno_text(errno));
        return NULL;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    job->source = (struct source){.fd = ends[0], .ready = output_ready};
    job->connection = connection;
    job->answer = answer;
    job->next = jobs;
    jobs = job;
    loop_watch(&job->source, EPOLLIN);
    connection_wait(connection, job, abandon);
    return job;
}

/* Go's wording of how a command ended; nothing when it ended well. */
static void ending_text(struct buffer *out, const struct job *job)
{
    if (job->output_cut)
        buffer_printf(out, "output was cut after %d bytes", MAX_OUTPUT);
    else if (WIFSIGNALED(job->status)) {
        const char *name = strsignal(WTERMSIG(job->status));

        buffer_text(out, "signal: ");
        for (; *name != '\0'; name++) /* Go writes them in lower case */
            buffer_printf(out, "%c", *name >= 'A' && *name <= 'Z' ? *name + 32 : *name);
        if (WCOREDUMP(job->status))
            buffer_text(out, " (core dumped)");
    } else if (WEXITSTATUS(job->status) != 0) {
        buffer_printf(out, "exit status %d", WEXITSTATUS(job->status));
    }
}

/* {"error":…,"output":…}, both only when there is something to say. */
static void answer_shell(struct connection *connection, struct span error, struct span output)
{
    struct buffer json = {0};

    buffer_text(&json, "{");
    if (error.len > 0) {
        buffer_text(&json, "\"error\":");
        json_string(&json, error);
    }
    if (output.len > 0) {
        buffer_text(&json, error.len > 0 ? ",\"output\":" : "\"output\":");
        json_string(&json, output);
    }
    buffer_text(&json, "}");
    respond_text(connection, 200, span_of_buffer(&json));
    buffer_free(&json);
}

static void shell_done(struct job *job)
{
    struct buffer error = {0};

    ending_text(&error, job);
    answer_shell(job->connection, span_of_buffer(&error), span_of_buffer(&job->output));
    buffer_free(&error);
}

void shell_endpoint(struct connection *connection, struct request *request)
{
    struct span command = request_form(request, "shellCommand");
    char *text;
    bool child;

    if (command.len == 0)
        command = request_form(request, "cmd");
    log_line("GET /shell?cmd=%.*s", SPAN_ARGS(command));
    if (access(SHELL, X_OK) < 0 || memchr(command.data, '\0', command.len) != NULL) {
        struct buffer error = {0};

        buffer_printf(&error, "fork/exec %s: %s", SHELL,
                      access(SHELL, X_OK) < 0 ? errno_text(errno) : "invalid argument");
        answer_shell(connection, span_of_buffer(&error), NO_SPAN);
        buffer_free(&error);
        return;
    }
    text = span_copy(command);
    start(connection, shell_done, &child);
    if (child) {
        dup2(STDOUT_FILENO, STDERR_FILENO);
        execl(SHELL, SHELL, "-c", text, (char *)NULL);
        _exit(127);
    }
    free(text);
}

/* The child's exit status says which HTTP status its output belongs to. */
enum { DIALED = 0, DIAL_REFUSED = 1 };

static void dial_done(struct job *job)
{
    struct response response = {.status = 200, .body = span_of_buffer(&job->output)};

    if (WIFEXITED(job->status) && WEXITSTATUS(job->status) == DIAL_REFUSED) {
        response.status = 400;
        response.nosniff = true;
    } else if (!WIFEXITED(job->status) || WEXITSTATUS(job->status) != DIALED || job->output_cut) {
        respond_error(job->connection, 500, "the dialing process failed");
        return;
    }
    connection_respond(job->connection, &response);
}

/* What can be refused without dialing; returns whether it was. */
static bool refuse_dial(struct connection *connection, const struct request *request,
                        struct dial *dial)
{
    struct span tries = request_query(request, "tries");
    const char *reason = NULL;

    if (tries.len > 0)
        reason = parse_integer(tries, &dial->tries);
    if (reason != NULL) {
        struct buffer quoted = {0};

        go_quote(&quoted, tries);
        respond_error(connection, 400, "tries parameter is invalid. strconv.Atoi: parsing %.*s: %s",
                      (int)quoted.len, quoted.data, reason);
        buffer_free(&quoted);
        return true;
    }
    if (dial->request[0] == '\0') {
        respond_error(connection, 400, "request parameter not specified. <nil>");
        return true;
    }
    for (const char *const *known = (const char *const[]){"", "http", "udp", "sctp", NULL};
         *known != NULL; known++)
        if (strcasecmp(dial->protocol, *known) == 0)
            return false;
    respond_error(connection, 400, "unsupported protocol. %s", dial->protocol);
    return true;
}

void dial_endpoint(struct connection *connection, struct request *request)
{
    struct dial dial = {
        .host = span_copy(request_query(request, "host")),
        .port = span_copy(request_query(request, "port")),
        .request = span_copy(request_query(request, "request")),
        .protocol = span_copy(request_query(request, "protocol")),
        .tries = 1,
    };
    bool child = false;
    struct job *job;

    log_line("GET /dial?host=%s&protocol=%s&port=%s&request=%s&tries=%.*s", dial.host,
             dial.protocol, dial.port, dial.request, SPAN_ARGS(request_query(request, "tries")));
    if (!refuse_dial(connection, request, &dial)) {
        job = start(connection, dial_done, &child);
        if (child)
            _exit(dial_run(&dial) == 200 ? DIALED : DIAL_REFUSED);
        if (job != NULL)
            job->useless_alone = true;
    }
    free(dial.host);
    free(dial.port);
    free(dial.request);
    free(dial.protocol);
}
