"""netexec's /shell and /upload: commands and files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest

from tests.images.netexec_client import FORM, multipart

if TYPE_CHECKING:
    from tests.images.netexec_client import Netexec, StartNetexec


class TestShell:
    """/shell."""

    @pytest.mark.parametrize(
        ("command", "answer"),
        [
            ("echo hello", {"output": "hello\n"}),
            ("echo a; echo b >&2", {"output": "a\nb\n"}),
            ("true", {}),
            ("exit 3", {"error": "exit status 3"}),
            ("echo x; false", {"error": "exit status 1", "output": "x\n"}),
            ("kill -9 $$", {"error": "signal: killed"}),
            ("cat", {}),
            ("cat /proc/self/status | grep SigBlk", {"output": "SigBlk:\t0000000000000000\n"}),
            ("ls /proc/$$/fd; true", {"output": "0\n1\n2\n"}),
            (r"""printf '\001"\\<é\377'""", {"output": '\x01"\\<é\ufffd'}),
        ],
    )
    def test_runs_the_command(self, server: Netexec, command: str, answer: dict[str, str]) -> None:
        """Output of both streams and how it ended, each key only if there is something."""
        response = server.get("/shell?" + urlencode({"cmd": command}))

        assert response.status == 200
        assert json.loads(response.body) == answer

    def test_json_as_go_writes_it(self, server: Netexec) -> None:
        """Keys are sorted, <, > and & are escaped."""
        response = server.get("/shell?" + urlencode({"cmd": "echo '<&>'; exit 1"}))

        assert response.body == '{"error":"exit status 1","output":"\\u003c\\u0026\\u003e\\n"}'

    def test_shell_command_and_post(self, server: Netexec) -> None:
        """The old name shellCommand works too, also in a posted form."""
        body = urlencode({"shellCommand": "echo posted", "cmd": "echo other"}).encode()

        response = server.get("/shell", method="POST", body=body, headers=FORM)

        assert json.loads(response.body) == {"output": "posted\n"}

    def test_does_not_block_the_server(self, server: Netexec, tmp_path: Path) -> None:
        """While a command waits, others are served."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        with server.connect() as slow:
            command = quote(f"cat {fifo}")
            slow.sendall(f"GET /shell?cmd={command} HTTP/1.0\r\n\r\n".encode())

            assert server.get("/shell?cmd=echo+quick").body == '{"output":"quick\\n"}'
            fifo.write_text("slow")
            assert slow.recv(4096).endswith(b'{"output":"slow"}')

    def test_background_process_keeps_the_answer_waiting(self, server: Netexec) -> None:
        """As with Go's CombinedOutput the answer is complete when all output is."""
        response = server.get("/shell?" + urlencode({"cmd": "(sleep 0.1; echo late) & echo soon"}))

        assert json.loads(response.body) == {"output": "soon\nlate\n"}


class TestUpload:
    """/upload."""

    def upload(self, server: Netexec, content: bytes) -> Path:
        """Upload and return the file's path."""
        body, content_type = multipart("file", content, "name.txt")
        headers = {"Content-Type": content_type}

        response = server.get("/upload", method="POST", body=body, headers=headers)

        assert response.status == 201
        answer = json.loads(response.body)
        assert list(answer) == ["output"]
        return Path(answer["output"])

    @pytest.mark.parametrize(
        "content", [b"text\n", b"", b"\r\n--XyY\r\n\x00\xff", bytes(range(256)) * 8192]
    )
    def test_stores_the_file(self, server: Netexec, content: bytes) -> None:
        """The file's content is stored under a new name, with mode 0700."""
        path = self.upload(server, content)

        assert path.name.startswith("upload")
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o700

    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (b"", "text/plain"),
            multipart("other", b"x", "name"),
            multipart("file", b"x"),
            (multipart("file", b"x", "name")[0][:-12], "multipart/form-data; boundary=XyZ"),
            (b"--XyZ--\r\n", "multipart/form-data; boundary=XyZ"),
            (b"--XyZ\r\n\r\n\r\n--XyZ", "multipart/form-data; boundary=XyZ"),
            (multipart("file", b"x", "name")[0], "multipart/form-data"),
            (multipart("file", b"x", "name")[0], 'multipart/form-data; boundary="XyZ'),
        ],
    )
    def test_without_file(self, server: Netexec, body: bytes, content_type: str) -> None:
        """Without a whole file named "file" there is an error, with status 200."""
        headers = {"Content-Type": content_type}

        response = server.get("/upload", method="POST", body=body, headers=headers)

        assert (response.status, response.body) == (200, '{"error":"Unable to upload file."}')

    def test_nowhere_to_store(self, start: StartNetexec) -> None:
        """If the directory cannot be had, the answer says so."""
        body, content_type = multipart("file", b"x", "name")
        netexec = start("--upload-dir=/proc/nowhere")

        response = netexec.get(
            "/upload", method="POST", body=body, headers={"Content-Type": content_type}
        )

        assert response.body == '{"error":"Unable to open file for write"}'
