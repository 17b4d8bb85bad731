"""Fetching: downloads that go on, checksums, archives that must not be unpacked, a local server that misbehaves."""

import hashlib
import io
import os
import resource
import shutil
import socket
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dcodp.cli import build_app
from dcodp.config import DatasetConfig
from dcodp.data import download as downloads
from dcodp.data.archives import unpack
from dcodp.data.conversion import content
from dcodp.data.fetching import fetch
from dcodp.data.sources import Archive, Folder, read_sources
from dcodp.data.splits import load
from dcodp.errors import InputError
from dcodp.files import leased

CONF = Path(__file__).resolve().parents[2] / "conf"
NOISE = bytes(hashlib.shake_128(b"noise").digest(200_000))  # an incompressible file's contents


class Handler(BaseHTTPRequestHandler):
    """Serves server.files with Range, as far as server.drops lets it: the bytes sent before each connection breaks."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if self.path not in server.files:
            return self.send_error(404)
        body, start = server.files[self.path], 0
        if (wanted := self.headers.get("Range")) and server.knows_range:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.chunked:  # packed while it is sent: nobody knows how long it is
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        sent = server.drops.pop(0) if server.drops else len(body)
        self.wfile.write(body[start : start + sent])
        self.wfile.flush()
        if sent < len(body) - start:
            time.sleep(server.stall_s)
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE_S", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.files, served.asked, served.drops, served.knows_range, served.stall_s = {}, [], [], True, 0.0
        served.chunked = False
        served.url = f"http://127.0.0.1:{served.server_port}"
        threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield served
        served.shutdown()


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return stream.getvalue()


def published(server, name: str, body: bytes, **changes) -> Archive:
    """An archive that the server has, described as it is except for `changes`."""
    server.files[f"/{name}"] = body
    facts = {"bytes": len(body), "addresses": (f"{server.url}/{name}",), "md5": hashlib.md5(body).hexdigest()}
    return Archive(name, **{**facts, **changes})


def kit(*archives: Archive, holds=("list.txt",)) -> list[Folder]:
    return [Folder("kit/one", "in", archives, holds)]


@pytest.fixture
def body():
    return tar({"kit/one/list.txt": b"a\n", "kit/one/noise": NOISE})


@pytest.fixture
def bring(tmp_path):
    """fetch into tmp_path/data; returns what it said."""

    def run(folders, source=None, keep=False):
        said = []
        fetch(folders, tmp_path / "data", source, keep, said.append)
        return "\n".join(said)

    return run


def refused(bring, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        bring(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_dropped_connection_goes_on_where_it_stopped(server, bring, tmp_path, body):
    server.drops = [70_000, 1, 50_000]
    said = bring(kit(published(server, "a.tar", body)))
    assert [r for _, r in server.asked] == [None, "bytes=70000-", "bytes=70001-", "bytes=120001-"]
    assert (tmp_path / "data/in/kit/one/noise").read_bytes() == NOISE
    assert tree(tmp_path / "data") == {"in/kit/one/noise", "in/kit/one/list.txt"}  # no archive, no .part left
    assert "after 70,000 of" in said and "verified by its md5" in said and "in/kit/one is complete" in said


def test_what_is_there_is_left_alone(server, bring, body):
    folders = kit(published(server, "a.tar", body))
    bring(folders)
    assert "is there already" in bring(folders) and len(server.asked) == 1


def test_a_later_attempt_goes_on_too(server, bring, tmp_path, body):
    part = tmp_path / "data/downloads/a.tar.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body[:123_456])
    bring(kit(published(server, "a.tar", body)), keep=True)
    assert server.asked == [("/a.tar", "bytes=123456-")]
    assert (tmp_path / "data/downloads/a.tar").read_bytes() == body and not part.exists()


def test_a_kept_archive_is_not_loaded_again(server, bring, tmp_path, body):
    folders = kit(published(server, "a.tar", body))
    bring(folders, keep=True)
    shutil.rmtree(tmp_path / "data/in")
    bring(folders, keep=True)
    assert len(server.asked) == 1
    (tmp_path / "data/downloads/a.tar").write_bytes(body[:-1])
    shutil.rmtree(tmp_path / "data/in")
    assert "bytes, not" in (message := refused(bring, folders)) and "delete it" in message


def test_a_server_that_ignores_range_is_read_from_the_start(server, bring, tmp_path, body):
    server.knows_range, server.drops = False, [100_000]
    bring(kit(published(server, "a.tar", body)))
    assert [r for _, r in server.asked] == [None, "bytes=100000-"]
    assert (tmp_path / "data/in/kit/one/noise").read_bytes() == NOISE


def test_a_stalled_connection_is_given_up(server, bring, monkeypatch, body):
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
    server.drops, server.stall_s = [60_000], 1.0
    assert "timed out after 60,000 of" in bring(kit(published(server, "a.tar", body)))


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_a_wrong_checksum_is_refused(server, bring, tmp_path, body, name):
    wrong = {name: "0" * (32 if name == "md5" else 64)}
    message = refused(bring, kit(published(server, "a.tar", body, **wrong)))
    assert f"its {name} is" in message and "it was deleted" in message
    assert tree(tmp_path / "data") == set()


def test_something_else_in_its_place_is_refused_before_it_is_loaded(server, bring, tmp_path, body):
    archive = published(server, "a.tar", body)
    server.files["/a.tar"] = b"<html>moved</html>"
    assert "answers with 18 bytes instead of" in refused(bring, kit(archive))
    assert tree(tmp_path / "data") == set()


def test_the_next_address_is_tried(server, bring, body):
    addresses = (f"{server.url}/gone.tar", f"{server.url}/a.tar")
    said = bring(kit(published(server, "a.tar", body, addresses=addresses)))
    assert "gone.tar: answers 404" in said and "is complete" in said


def test_no_address_answers(server, bring, tmp_path, body):
    server.drops = [40_000, *[0] * 50]
    message = refused(bring, kit(published(server, "a.tar", body)))
    assert "gave up after 5 attempts" in message and f"40,000 of {len(body):,} bytes are kept" in message
    assert (tmp_path / "data/downloads/a.tar.part").stat().st_size == 40_000
    server.drops = []
    bring(kit(published(server, "a.tar", body)))


def test_a_full_disk_keeps_what_came(server, bring, tmp_path, body):
    folders = kit(published(server, "a.tar", body))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    try:
        message = refused(bring, folders)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "a.tar.part cannot be written" in message and "make room" in message
    kept = (tmp_path / "data/downloads/a.tar.part").stat().st_size
    assert kept == 65_536
    bring(folders)
    assert server.asked[-1] == ("/a.tar", "bytes=65536-")


def test_room_is_looked_for_first(server, bring, monkeypatch, body):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    assert "make room" in refused(bring, kit(published(server, "a.tar", body))) and server.asked == []


def test_two_archives_make_one_folder(server, bring, tmp_path, body):
    more = tar({"kit/one/more.txt": b"b\n", "elsewhere.txt": b""})
    folders = kit(published(server, "a.tar", body), published(server, "b.tar", more), holds=("list.txt", "more.txt"))
    bring(folders)
    assert tree(tmp_path / "data/in") == {f"kit/one/{name}" for name in ("list.txt", "noise", "more.txt")}
    (tmp_path / "data/in/kit/one/more.txt").unlink()
    assert "is there, but lacks more.txt" in refused(bring, folders)


def test_archives_without_the_folder_leave_nothing(server, bring, tmp_path):
    folders = kit(published(server, "a.tar", tar({"kit/two/list.txt": b""})))
    assert "do not hold kit/one" in refused(bring, folders)
    folders = kit(published(server, "a.tar", tar({"kit/one/other.txt": b""})))
    (tmp_path / "data/downloads/a.tar").unlink()
    assert "do not hold kit/one/list.txt" in refused(bring, folders)
    assert tree(tmp_path / "data") == {"downloads/a.tar"}


def test_from_a_folder_without_network(server, bring, tmp_path, body):
    archive, source = published(server, "a.tar", body), tmp_path / "usb"
    source.mkdir()
    message = refused(bring, kit(archive), source)
    assert "usb/a.tar does not exist" in message and archive.addresses[0] in message
    (source / "a.tar").write_bytes(NOISE)
    assert "bytes, not" in refused(bring, kit(archive), source)
    (source / "a.tar").write_bytes(body[:-1] + b"x")
    assert "its md5 is" in refused(bring, kit(archive), source)
    (source / "a.tar").write_bytes(body)
    bring(kit(archive), source)
    assert tree(tmp_path / "data/in") and tree(source) == {"a.tar"} and server.asked == []


def test_one_fetch_at_a_time(bring, tmp_path):
    data = tmp_path / "data"
    with leased(data, "the data", marker=data / ".fetch.lock"):
        assert f"another fetch (process {os.getpid()} on " in refused(bring, kit())


def cells(server, voc_tree, **changes) -> Folder:
    """A data set in VOC's layout, packed anew for each download, as conf/sources.yaml describes BCCD."""
    voc_tree.list("test", "b")
    voc_tree.annotate("c", voc_tree.object("person", 10, 15, 30, 21), voc_tree.object("dog", 7, 7, 7, 9))
    folder = voc_tree.folder
    body = zipped({f"repo-1a2b/{path}": (folder / path).read_bytes() for path in sorted(tree(folder))})
    archive = published(server, "cells.zip", body, bytes=None, md5=None)
    facts = changes or {"content": cells_content(voc_tree)}
    return Folder("cells", ".", (archive,), ("data.yaml",), "repo-1a2b", ("person", "dog", "cat"), **facts)


IN = ("train/a", "train/b", "train/c", "val/c", "val/a", "test/b")
# Shares of 40 × 30 pixels; of c, the corners (10, 15) and (30, 21), and a box without area; so is b's.
ROWS = {
    "a": b"1 0.512500 0.516667 0.975000 0.966667\n0 0.281250 0.220833 0.462500 0.241667\n",
    "b": b"",
    "c": b"0 0.500000 0.600000 0.500000 0.200000\n",
}
DESCRIBED = b"train: images/train\nval: images/val\ntest: images/test\nnames:\n  0: person\n  1: dog\n  2: cat\n"


def cells_content(voc_tree) -> str:
    files = {"data.yaml": DESCRIBED}
    files |= {f"images/{name}.jpg": voc_tree.image(name[-1]).read_bytes() for name in IN}
    files |= {f"labels/{name}.txt": ROWS[name[-1]] for name in IN}
    lines = [f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
def test_another_layout_is_turned_and_verified_by_what_it_holds(server, bring, tmp_path, voc_tree, chunked):
    server.chunked, server.drops = chunked, [400]
    said = bring([cells(server, voc_tree)])
    assert "bytes; beginning anew" in said and "verified" not in said and "cells is complete" in said
    assert [wanted for _, wanted in server.asked] == [None, None]
    made = tmp_path / "data" / "cells"
    assert tree(made) == {"data.yaml", *(f"images/{i}.jpg" for i in IN), *(f"labels/{i}.txt" for i in IN)}
    assert {name: (made / f"labels/train/{name}.txt").read_bytes() for name in ROWS} == ROWS
    assert (made / "data.yaml").read_bytes() == DESCRIBED
    assert tree(tmp_path / "data") == {f"cells/{path}" for path in tree(made)}
    whole = load(DatasetConfig(layout="custom", file=str(made / "data.yaml")), made, "train")
    assert whole.classes == ("person", "dog", "cat") and [len(image.boxes) for image in whole.images] == [2, 0, 1]


def test_other_boxes_than_were_published_are_refused(server, bring, tmp_path, voc_tree):
    folder = cells(server, voc_tree, content="0" * 64)
    assert f"other images or boxes than were published ({cells_content(voc_tree)})" in refused(bring, [folder])
    assert tree(tmp_path / "data") == {"downloads/cells.zip"}


def test_a_layout_that_cannot_be_turned_is_named(server, bring, tmp_path, voc_tree):
    whole = cells(server, voc_tree)
    voc_tree.image("b").unlink()
    assert "JPEGImages/b.jpg is missing" in refused(bring, [cells(server, voc_tree, content=whole.content)])
    (tmp_path / "data/downloads/cells.zip").unlink()
    voc_tree.annotate("a", voc_tree.object("horse", 1, 1, 4, 4))
    message = refused(bring, [cells(server, voc_tree, content=whole.content)])
    assert "Annotations/a.xml" in message and "is of unknown class 'horse'" in message
    assert tree(tmp_path / "data") == {"downloads/cells.zip"}


@pytest.mark.realdata
def test_bccd_as_it_was_measured_is_what_is_fetched(realdata):
    (folder,) = read_sources(CONF / "sources.yaml")["bccd"]
    assert content(realdata / "bccd") == folder.content


def entry(kind: bytes, name="kit/one/link", target="../../../outside") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("first.txt"))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    return stream.getvalue()


def zip_link() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc")
    return stream.getvalue()


HOSTILE = {
    "climbs.tar": (tar({"first.txt": b"", "kit/../../out.txt": b"x"}), "outside its folder"),
    "absolute.tar": (tar({"first.txt": b"", "/tmp/dcodp-out.txt": b"x"}), "outside its folder"),
    "climbs.zip": (zipped({"first.txt": b"", "../out.txt": b"x"}), "outside its folder"),
    "absolute.zip": (zipped({"first.txt": b"", "/tmp/dcodp-out.txt": b"x"}), "outside its folder"),
    "backslash.zip": (zipped({"first.txt": b"", "..\\out.txt": b"x"}), "outside its folder"),
    "drive.zip": (zipped({"first.txt": b"", "C:/out.txt": b"x"}), "outside its folder"),
    "symlink.tar": (entry(tarfile.SYMTYPE), "is a link"),
    "hardlink.tar": (entry(tarfile.LNKTYPE), "is a link"),
    "device.tar": (entry(tarfile.CHRTYPE), "is a device"),
    "pipe.tar": (entry(tarfile.FIFOTYPE), "is a device"),
    "symlink.zip": (zip_link(), "is a link"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_whole(name, tmp_path):
    content, message = HOSTILE[name]
    archive, into = tmp_path / name, tmp_path / "deep" / "into"
    archive.write_bytes(content)
    into.mkdir(parents=True)
    with pytest.raises(InputError, match=message):
        unpack(archive, into)
    assert tree(tmp_path) == {name} and not Path("/tmp/dcodp-out.txt").exists()


def test_an_archive_that_climbs_is_refused_after_its_download(server, bring, tmp_path):
    message = refused(bring, kit(published(server, "a.tar", HOSTILE["climbs.tar"][0])))
    assert "wants to write to 'kit/../../out.txt'" in message
    assert tree(tmp_path) == {"data/downloads/a.tar"}


@pytest.mark.parametrize("name", ["crc.zip", "torn.tar", "noise.tar"])
def test_damaged_archives_are_named(name, tmp_path):
    broken = bytearray(zipped({"noise": NOISE}))
    broken[100_000] ^= 1  # only the CRC can tell
    contents = {"crc.zip": bytes(broken), "torn.tar": tar({"noise": NOISE})[:90_000], "noise.tar": NOISE}
    (tmp_path / name).write_bytes(contents[name])
    (tmp_path / "into").mkdir()
    with pytest.raises(InputError, match=f"{name} is damaged"):
        unpack(tmp_path / name, tmp_path / "into")


def test_the_committed_sources_are_complete():
    known = read_sources(CONF / "sources.yaml")
    assert set(known) == {"voc2007", "voc2012", "coco2017", "bccd"}
    (cells,) = known["bccd"]
    assert cells.content and cells.archives[0].bytes is None  # GitHub packs it anew
    archives = [archive for folders in known.values() for folder in folders for archive in folder.archives]
    archives.remove(cells.archives[0])
    assert len(archives) == len({archive.md5 for archive in archives}) == 6
    assert all(len(archive.md5) == 32 and archive.bytes > 10**8 for archive in archives)
    places = {folder.place(Path("data")).as_posix() for folders in known.values() for folder in folders}
    assert places == {
        "data/bccd",
        *(f"data/VOCdevkit/VOC{year}" for year in (2007, 2012)),
        *(f"data/coco/{name}" for name in ("annotations", "train2017", "val2017")),
    }


SOURCES = """
one:
  into: {into}
  folders:
    kit/one:
      holds: [list.txt]
      archives:
        - {{file: {file}, bytes: {bytes}, md5: {md5}, addresses: {addresses}}}
"""
FINE = {"into": "in", "file": "a.tar", "bytes": 1, "md5": "'" + "01" * 16 + "'", "addresses": "['http://x/a.tar']"}


def test_sources_are_read(tmp_path):
    path = tmp_path / "sources.yaml"
    path.write_text(SOURCES.format(**FINE))
    archive = Archive("a.tar", 1, ("http://x/a.tar",), "01" * 16)
    assert read_sources(path) == {"one": (Folder("kit/one", "in", (archive,), ("list.txt",)),)}


UNUSABLE = [
    {"file": "../a.tar"},
    {"addresses": "['file:///etc/passwd']"},
    {"addresses": "[]"},
    {"into": "../x"},
    {"bytes": "1, colour: red"},
    {"md5": "01" * 16},  # without quotes a number
    {"bytes": "null"},  # then content has to be told
]


@pytest.mark.parametrize("change", UNUSABLE)
def test_sources_that_cannot_be_used_are_refused(tmp_path, change):
    path = tmp_path / "sources.yaml"
    path.write_text(SOURCES.format(**FINE | change))
    with pytest.raises(InputError, match=r"sources\.yaml is not understood"):
        read_sources(path)


def test_the_command(server, tmp_path, monkeypatch, body):
    archive = published(server, "a.tar", body)
    facts = {"bytes": archive.bytes, "md5": f"'{archive.md5}'", "addresses": list(archive.addresses)}
    (tmp_path / "sources.yaml").write_text(SOURCES.format(**FINE | facts))
    monkeypatch.chdir(tmp_path)
    server.drops = [1000]
    fetch = ["data", "fetch", "--sources", "sources.yaml"]
    told = CliRunner().invoke(build_app(), [*fetch, "one", "--keep-archives"])
    assert told.exit_code == 0 and "one: ready under data" in told.output and "going on" in told.output
    assert (tmp_path / "data/in/kit/one/noise").read_bytes() == NOISE
    again = CliRunner().invoke(build_app(), [*fetch, "one", "--data", "other", "--from", "data/downloads"])
    assert again.exit_code == 0 and len(server.asked) == 2
    unknown = CliRunner().invoke(build_app(), [*fetch, "two"])
    assert "use one or more of one" in str(unknown.exception)
