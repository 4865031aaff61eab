/* /upload: keeps the multipart field "file" in a file of its own. */

#include "netexec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Answers {"<key>":"<text>"}. */
static void answer(struct connection *connection, int status, const char *key, struct span text)
{
    struct buffer json = {0};

    buffer_printf(&json, "{\"%s\":", key);
    json_string(&json, text);
    buffer_text(&json, "}");
    respond_text(connection, status, span_of_buffer(&json));
    buffer_free(&json);
}

static bool write_all(int fd, struct span content)
{
    while (content.len > 0) {
        ssize_t count = write(fd, content.data, content.len);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return false;
        content.data += count;
        content.len -= (size_t)count;
    }
    return true;
}

static void store(struct connection *connection, struct span content)
{
    struct buffer path = {0};
    int fd;

    buffer_printf(&path, "%s/uploadXXXXXX", options.upload_dir);
    buffer_append(&path, "", 1);
    mkdir(options.upload_dir, 0755); /* agnhost's image brings it */
    fd = mkostemp(path.data, O_CLOEXEC);
    if (fd < 0) {
        log_line("Unable to open file for write: %s", errno_text(errno));
        answer(connection, 200, "error", SPAN("Unable to open file for write"));
    } else if (!write_all(fd, content)) {
        log_line("Unable to write file: %s", errno_text(errno));
        unlink(path.data);
        answer(connection, 200, "error", SPAN("Unable to write file."));
    } else if (fchmod(fd, 0700) < 0) {
        log_line("Unable to chmod file: %s", errno_text(errno));
        answer(connection, 200, "error", SPAN("Unable to chmod file."));
    } else {
        log_line("Wrote upload to %s", path.data);
        answer(connection, 201, "output", span_of(path.data));
    }
    if (fd >= 0)
        close(fd);
    buffer_free(&path);
}

void upload_endpoint(struct connection *connection, struct request *request)
{
    struct span content;

    log_line("GET /upload");
    if (request_file(request, "file", &content)) {
        store(connection, content);
        return;
    }
    log_line("Unable to upload file: no such file in a multipart form");
    answer(connection, 200, "error", SPAN("Unable to upload file."));
}
