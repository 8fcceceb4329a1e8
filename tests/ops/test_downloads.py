"""The control plane's programs from a server: verified and kept, or refused in a line and built."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.embedded_cluster import binaries, downloads
from ops.errors import FailedError, OpsError

ARCHIVED, ALONE = ("etcd", "kube-apiserver", "kubectl"), ("kube-controller-manager", "kube-scheduler")
ARCHIVE = f"envtest-{downloads.RELEASE}-linux-amd64.tar.gz"


def program(name: str, release: str = downloads.RELEASE) -> bytes:
    says = "etcd Version: 3.6.8" if name == "etcd" else f"Kubernetes {release}"
    return f"#!/bin/sh\necho '{says}'\n".encode()


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as files:
        for name in names:
            content = program(name)
            member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            member.size, member.mode = len(content), 0o755
            files.addfile(member, io.BytesIO(content))
    return made.getvalue()


class Mirror:
    """What a server has by the last part of the path, and how it fails."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {ARCHIVE: archive(*ARCHIVED)}
        for name in ALONE:
            self.files[name] = program(name)
            self.files[f"{name}.sha512"] = hashlib.sha512(program(name)).hexdigest().encode()
        self.asked: list[str] = []
        self.cut: set[str] = set()
        self.hang: set[str] = set()
        self.drip: set[str] = set()
        self.stall: set[str] = set()  # after the first bytes
        self.lengths: dict[str, str] = {}  # told instead of the true one
        self.over = threading.Event()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    has = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            has.asked.append(self.path)
            if name in has.hang:
                has.over.wait(20)
                return
            content = has.files.get(name)
            self.send_response(200 if content is not None else 404)
            self.send_header("content-length", has.lengths.get(name, str(len(content or b""))))
            self.end_headers()
            if name in has.stall:
                self.wfile.write(b"first")
                has.over.wait(20)
                return
            for byte in (content or b"")[: 20 if name in has.cut else None]:
                self.wfile.write(bytes([byte]))
                if name in has.drip and has.over.wait(0.05):
                    return

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  the base's name

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv(downloads.SOURCE, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(downloads.platform, "machine", lambda: "x86_64")
    monkeypatch.setitem(downloads.ENVTEST_SHA512, "amd64", hashlib.sha512(has.files[ARCHIVE]).hexdigest())
    monkeypatch.setattr(downloads, "SILENCE_S", 0.5)
    yield has
    has.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., tuple[set[str], list[str]]]:
    """What is kept after asking for tools, and what the operator was told."""

    def asked(*tools: str) -> tuple[set[str], list[str]]:
        said: list[str] = []
        downloads.take(tools or downloads.NAMES, tmp_path, said.append, binaries.unfit_by_name)
        kept = downloads.folder(tmp_path)
        return {path.name for path in kept.iterdir()} if kept.exists() else set(), said

    return asked


Take = Callable[..., tuple[set[str], list[str]]]


def test_all_that_is_published_is_taken_with_its_checksum(mirror: Mirror, take: Take, tmp_path: Path) -> None:
    kept, said = take()
    assert kept == set(downloads.NAMES)
    assert all((downloads.folder(tmp_path) / name).stat().st_mode & 0o111 for name in kept)
    assert sum("checksum verified" in line for line in said) == 3
    assert "/kubernetes-sigs/controller-tools/releases/download/" in mirror.asked[0]
    assert f"/{downloads.RELEASE}/bin/linux/amd64/kube-scheduler" in mirror.asked


def test_only_what_is_missing_is_asked_for(mirror: Mirror, take: Take) -> None:
    assert take("kube-scheduler", "kwok")[0] == {"kube-scheduler"}
    assert [path.rsplit("/", 1)[-1] for path in mirror.asked] == ["kube-scheduler.sha512", "kube-scheduler"]


def _other_content(mirror: Mirror) -> None:
    mirror.files[ARCHIVE] = archive(*ARCHIVED, "more")


def _other_program(mirror: Mirror) -> None:
    mirror.files["kube-scheduler"] += b"echo more\n"


def _no_archive(mirror: Mirror) -> None:
    del mirror.files[ARCHIVE]


def _no_checksum(mirror: Mirror) -> None:
    del mirror.files["kube-scheduler.sha512"]


def _page_for_a_checksum(mirror: Mirror) -> None:
    mirror.files["kube-scheduler.sha512"] = b"<html>please log in</html>"


def _cut_archive(mirror: Mirror) -> None:
    mirror.cut.add(ARCHIVE)


def _cut_program(mirror: Mirror) -> None:
    mirror.cut.add("kube-scheduler")


def _stalled_program(mirror: Mirror) -> None:
    mirror.stall.add("kube-scheduler")


def _length_no_number(mirror: Mirror) -> None:
    mirror.lengths["kube-scheduler"] = "many"


def _checksum_stalled(mirror: Mirror) -> None:
    mirror.stall.add("kube-scheduler.sha512")


def _another_release(mirror: Mirror) -> None:
    other = program("kube-scheduler", "v1.30.0")
    mirror.files["kube-scheduler"] = other
    mirror.files["kube-scheduler.sha512"] = hashlib.sha512(other).hexdigest().encode()


@pytest.mark.parametrize(
    ("spoil", "lost", "told"),
    [
        (_other_content, set(ARCHIVED), "has the SHA-512"),
        (_other_program, {"kube-scheduler"}, "has the SHA-512"),
        (_no_archive, set(ARCHIVED), "answers 404"),
        (_no_checksum, {"kube-scheduler"}, "answers 404"),
        (_page_for_a_checksum, {"kube-scheduler"}, "holds no SHA-512"),
        (_cut_archive, set(ARCHIVED), "ended after 0.0 MB"),
        (_cut_program, {"kube-scheduler"}, "ended after 0.0 MB"),
        (_stalled_program, {"kube-scheduler"}, "timed out"),
        (_length_no_number, {"kube-scheduler"}, "invalid literal"),
        (_checksum_stalled, {"kube-scheduler"}, "timed out"),
        (_another_release, {"kube-scheduler"}, "is 1.30.0, but the cluster needs 1.36"),
    ],
)
def test_what_is_not_as_published_is_not_kept_and_the_rest_is(
    mirror: Mirror, take: Take, spoil: Callable[[Mirror], None], lost: set[str], told: str
) -> None:
    spoil(mirror)
    kept, said = take()
    assert kept == set(downloads.NAMES) - lost
    (reason,) = [line for line in said if "not downloaded" in line]
    assert told in reason


def test_an_archive_without_a_program_keeps_those_before_it_and_says_so(
    mirror: Mirror, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.files[ARCHIVE] = archive("etcd")
    monkeypatch.setitem(downloads.ENVTEST_SHA512, "amd64", hashlib.sha512(mirror.files[ARCHIVE]).hexdigest())
    kept, said = take(*ARCHIVED)
    assert kept == {"etcd"}
    assert any("the archive has no kube-apiserver" in line for line in said)


def test_a_server_that_hangs_is_left_within_seconds_and_nobody_else_is_asked(mirror: Mirror, take: Take) -> None:
    mirror.hang.add(ARCHIVE)
    started = time.monotonic()
    kept, said = take()
    assert time.monotonic() - started < 10
    assert kept == set()
    assert len(mirror.asked) == 1
    assert "cannot be reached" in said[-1]


def test_a_server_that_drips_is_left(mirror: Mirror, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.drip.add(ARCHIVE)
    monkeypatch.setattr(downloads, "GRACE_S", 0.3)
    kept, said = take(*ARCHIVED)
    assert kept == set()
    assert "is slow" in said[-1]


def test_nobody_there_is_one_line_at_once(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(downloads.SOURCE, "http://127.0.0.1:9")
    kept, said = take()
    assert kept == set()
    assert len([line for line in said if "not downloaded" in line]) == 1


@pytest.mark.parametrize("name", ["partial", "kube-scheduler.partial", "kube-scheduler"])
def test_a_folder_in_the_way_is_told_in_a_line_and_left_alone(
    mirror: Mirror, take: Take, tmp_path: Path, name: str
) -> None:
    in_the_way = downloads.folder(tmp_path) / name
    in_the_way.mkdir(parents=True)
    kept, said = take("kube-scheduler")
    assert kept == {name}
    assert in_the_way.is_dir()
    assert "not downloaded, so built here" in said[-1]
    assert f"{in_the_way}: Is a directory" in said[-1]
    assert mirror.asked


def test_a_file_where_the_folder_should_be_is_told_and_nobody_is_asked(
    mirror: Mirror, take: Take, tmp_path: Path
) -> None:
    downloads.folder(tmp_path).write_text("")
    said: list[str] = []
    downloads.take(downloads.NAMES, tmp_path, said.append, binaries.unfit_by_name)
    assert said == [f"  not downloaded, so built here: {downloads.folder(tmp_path)}: File exists"]
    assert mirror.asked == []


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        ("http://user:s3cret@127.0.0.1:9/mirror", "http://127.0.0.1:9/mirror"),
        ("https://s3cret@mirror.invalid", "https://mirror.invalid"),
        ("https://user:s3cret/s3cret@s3cret@mirror.invalid", "https://mirror.invalid"),
        ("user:s3cret@mirror.invalid", "https://mirror.invalid"),
    ],
)
def test_a_mirror_s_password_is_refused_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, instead: str
) -> None:
    monkeypatch.setattr(downloads.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv(downloads.SOURCE, value)
    said: list[str] = []
    with pytest.raises(OpsError) as refused:
        downloads.take(downloads.NAMES, tmp_path, said.append, binaries.unfit_by_name)
    assert refused.value.problem.remedy == f"export {downloads.SOURCE}={instead}"
    assert "s3cret" not in f"{said}{refused.value}"


@pytest.mark.parametrize("value", ["http://[bad", "mirror.invalid", "http://host:port"])
def test_a_mirror_that_is_no_address_is_one_line(take: Take, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(downloads.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv(downloads.SOURCE, value)
    kept, said = take()
    assert kept == set()
    assert len([line for line in said if "not downloaded" in line]) == 1


def test_off_asks_nobody(mirror: Mirror, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(downloads.SOURCE, "off")
    assert take() == (set(), [])
    assert mirror.asked == []


def test_what_was_downloaded_is_found_and_what_was_not_is_built_with_the_time_left(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(
        '#!/bin/sh\ncase "$1" in env) [ "$2" = GOVERSION ] && echo go1.99.0 || echo off ;;\n'
        'build) while [ "$1" != -o ]; do shift; done; echo x > "$2" ;; esac\n'
    )
    go.chmod(0o755)
    del mirror.files["kube-scheduler"]
    said: list[str] = []
    found = binaries.find_or_build(said.append)
    assert found.etcd.parent == found.kube_controller_manager.parent == downloads.folder(tmp_path / "cache/ai-platform")
    assert found.kube_scheduler.parent == found.kwok.parent == binaries.cache_folder() / "bin"
    assert [line.strip().partition(" ...")[0] for line in said if "left in all" in line] == [
        "1 of 2: kube-scheduler",
        "2 of 2: kwok",
    ]
    mirror.asked.clear()
    assert binaries.find_or_build(said.append) == found
    assert mirror.asked == []


def test_without_go_nothing_is_downloaded_that_would_wait_for_what_has_to_be_built(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(FailedError, match="no `go` on PATH"):
        binaries.find_or_build(print)
    assert mirror.asked == []


def test_the_release_that_is_downloaded_is_of_the_minor_that_is_built() -> None:
    module = Path(binaries.__file__).parent / "controlplane" / "go.mod"
    minor = ".".join(downloads.RELEASE.split(".")[:2])
    assert f"k8s.io/kubernetes {minor}." in module.read_text(), "move RELEASE and its checksums too"
