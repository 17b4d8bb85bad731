"""wandb.mode=online against a stand-in of W&B's HTTP interface on this machine: what arrives, and what a lost
connection costs."""

import gzip
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dcodp import tracking
from dcodp.config import WandbConfig
from dcodp.records import Record, append_metrics, run_folder, write_record
from dcodp.tracking import Mirror, mirrored_numbers, sync

wandb = pytest.importorskip("wandb")
ONLINE = WandbConfig(mode="online")
RECORD = Record("abc123", "done", {"ratio": 0.5}, stages=[{"name": "dense", "map50": 1 / 3}], provenance={"seed": 0})


class Server(ThreadingHTTPServer):
    """Answers what W&B's client asks, and keeps the runs that it is told of."""

    daemon_threads = True

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.buckets: dict[str, dict] = {}  # run → what was said of it
        self.lines: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))  # run → file → lines
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def history(self, run: str) -> list[dict]:
        rows = [json.loads(line) for _, line in sorted(self.lines[run]["wandb-history.jsonl"].items())]
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]

    def summary(self, run: str) -> dict:
        told = json.loads(self.lines[run]["wandb-summary.json"][0])
        return {key: value for key, value in told.items() if not key.startswith("_")}

    def asked(self, query: str, given: dict) -> dict:
        if "upsertBucket" in query:
            self.buckets.setdefault(given["name"], {}).update({k: v for k, v in given.items() if v is not None})
            project = {"id": "p", "name": "dcodp", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": given["name"], "config": "{}", "historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}

    def streamed(self, run: str, files: dict) -> None:
        for name, part in files.items():
            for k, line in enumerate(part["content"]):
                self.lines[run][name][part["offset"] + k] = line


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        answer = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": self.server.asked(asked["query"], asked["variables"])}
        elif self.path.endswith("/file_stream"):
            self.server.streamed(self.path.split("/")[-2], json.loads(body).get("files") or {})
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST

    def log_message(self, *words) -> None:
        """Nothing to the test's output."""


@pytest.fixture
def reached(monkeypatch):
    """W&B, at an address; its client reads that once in a process, unless torn down."""

    def reach(address: str) -> None:
        wandb.teardown()
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)

    yield reach
    wandb.teardown()


@pytest.fixture
def server(reached):
    server = Server()
    reached(server.address)
    yield server
    server.stop()


def test_what_arrives_is_what_the_record_says(server, tmp_path):
    mirror = Mirror(ONLINE, "abc123", "sweep", tmp_path, RECORD.config)
    mirror.log({"stage": "train", "epoch": 0, "loss": 2.5})
    assert mirror.finish(RECORD)
    assert server.history("abc123") == [{"train/epoch": 0, "train/loss": 2.5}]
    assert server.summary("abc123") == mirrored_numbers(RECORD) | {"train/epoch": 0, "train/loss": 2.5}
    bucket = server.buckets["abc123"]
    assert bucket["groupName"] == "sweep" and bucket["project"] == "dcodp"
    told = json.loads(bucket["config"])
    assert told["ratio"]["value"] == 0.5 and told["provenance"]["value"] == {"seed": 0}


def test_a_lost_connection_is_one_warning_and_the_next_call_sends_all(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "WAIT_S", 2.0)
    folder = run_folder(tmp_path, "abc123")
    write_record(folder, RECORD)
    rows = [{"stage": "train", "epoch": epoch, "loss": 2.5 - epoch} for epoch in range(3)]
    mirror = Mirror(ONLINE, "abc123", "sweep", tmp_path, RECORD.config)
    for row in rows:
        append_metrics(folder, row)
    mirror.log(rows[0])
    server.stop()
    for row in rows[1:]:
        mirror.log(row)
    with pytest.warns(UserWarning, match=r"W&B stopped .*its record is complete"):
        assert not mirror.finish(RECORD)
    again = Server(server.server_address[1])
    try:
        assert sync(ONLINE, RECORD, tmp_path, "sweep") and not sync(ONLINE, RECORD, tmp_path, "sweep")
        assert again.history("abc123") == [{f"train/{k}": row[k] for k in ("epoch", "loss")} for row in rows]
        assert mirrored_numbers(RECORD).items() <= again.summary("abc123").items()
    finally:
        again.stop()


def test_no_server_from_the_start(reached, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "WAIT_S", 1.0)
    reached("http://127.0.0.1:9")
    mirror = Mirror(ONLINE, "abc123", None, tmp_path, RECORD.config)
    with pytest.warns(UserWarning, match="W&B stopped") as caught:
        mirror.log({"epoch": 0})
        mirror.log({"epoch": 1})
        assert not mirror.finish(RECORD)
    assert len(caught) == 1
