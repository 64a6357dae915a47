"""Rules of the dashboard's doors: who may see it, and who may change something; with a real server and real requests."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from hpsearch.report.dashboard.server import CONNECTIONS
from tests.support.dashboard_client import Served, serving, until
from tests.support.postgres_server import PASSWORD, Postgres
from tests.support.small_study import ROOT, hpsearch

STORAGE = "sqlite:///runs/hpsearch.db"
TOKEN = "a-token-that-nobody-knows"


@pytest.fixture(scope="module")
def study_folder(finished_search: tuple[Path, subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the searched folder that this module's servers share."""
    copied = tmp_path_factory.mktemp("served") / "a 'folder' & more"
    shutil.copytree(finished_search[0], copied)
    return copied


@pytest.fixture(scope="module")
def served(study_folder: Path) -> Iterator[Served]:
    """As it is by default: this machine alone, read-only."""
    with serving(study_folder, "small") as running:
        yield running


@pytest.fixture(scope="module")
def guarded(study_folder: Path) -> Iterator[Served]:
    """For the whole network, with a token."""
    with serving(study_folder, "--host", "0.0.0.0", HPSEARCH_DASHBOARD_TOKEN=TOKEN) as running:
        yield running


@pytest.fixture
def editable(searched_folder: Path) -> Iterator[Served]:
    """Of a study of its own, which a test may spoil."""
    with serving(searched_folder, "small", "--allow-edit") as running:
        yield running


def test_it_shows_the_study_and_its_columns(served: Served) -> None:
    assert served.address.endswith("/dashboard/studies/1")
    study = served.ask("/api/studies/1").data
    assert study["name"] == "small"
    assert study["objective_names"] == ["val_accuracy"]
    assert len(study["trials"]) == 8
    columns = {column["key"]: column["sortable"] for column in study["union_user_attrs"]}
    assert all(columns[name] for name in ("parameters", "flops", "gap", "seconds", "epochs_done", "train_accuracy"))
    assert all(trial["intermediate_values"] for trial in study["trials"])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.0.7", ""])
def test_a_foreign_host_is_refused_on_loopback(served: Served, host: str) -> None:
    answer = served.ask("/api/studies", Host=host)
    assert answer.status == 403
    assert len(answer.text.splitlines()) == 1
    assert "--allow-host" in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_this_machines_own_names_are_served(served: Served, host: str) -> None:
    assert served.ask("/api/studies", Host=host).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/studies/1"),
        ("PUT", "/api/studies/1/note"),
        ("PUT", "/api/studies/1/2/note"),
        ("POST", "/api/trials/1/tell"),
        ("POST", "/api/trials/1/user-attrs"),
        ("POST", "/api/studies"),
        ("POST", "/api/studies/1/rename"),
        ("POST", "/api/artifacts/1"),
        ("DELETE", "/api/artifacts/1/00000000-0000-0000-0000-000000000000"),
        ("PATCH", "/api/studies/1"),
        ("OPTIONS", "/api/studies"),
    ],
)
def test_it_only_shows_by_default(served: Served, method: str, path: str) -> None:
    before = served.ask("/api/studies/1").body
    answer = served.ask(path, method, body={"body": "mine", "version": 1, "state": "Fail", "user_attrs": {"x": 1}})
    assert answer.status == 403
    assert len(answer.text.splitlines()) == 1
    assert "--allow-edit" in answer.text
    assert served.ask("/api/studies/1").body == before


def test_every_answer_is_kept_from_other_sites(served: Served) -> None:
    for path in ("/dashboard", "/api/studies", "/static/bundle.js", "/no-such-page"):
        headers = served.ask(path, Accept_Encoding="gzip").headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cross-origin-resource-policy"] == "same-origin", path
        directives = headers["content-security-policy"].split("; ")
        # A note may name an image, a base address or a form of another site.
        wanted = {"frame-ancestors 'self'", "img-src 'self' data: blob:", "base-uri 'none'", "form-action 'none'"}
        assert path == "/no-such-page" or wanted <= set(directives), path
        assert len(directives) == len({each.split()[0] for each in directives}), f"{path} has two policies"
        assert "access-control-allow-origin" not in headers, path


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: 127",
        b"PUT /api/studies/1/note HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\nabc",
        b"GET /static/bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\n\r\n",
    ],
    ids=["silent", "half a header", "half a body", "nothing is read"],
)
def test_slow_connections_do_not_stop_it_answering(served: Served, sent: bytes) -> None:
    before = served.said.read_text()
    with contextlib.ExitStack() as held:
        for _ in range(CONNECTIONS + 50):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=60))
            with contextlib.suppress(ConnectionError):  # an older one may be closed, never a new one
                connection.sendall(sent)
        assert served.ask("/api/studies").status == 200
    assert served.said.read_text() == before


@pytest.mark.parametrize("address", ["/api/studies/1", "/dashboard", "/csv/1", "/static/bundle.js", "/"])
def test_a_request_without_the_token_is_refused(guarded: Served, address: str) -> None:
    for headers in ({}, {"Cookie": f"hpsearch-dashboard-{guarded.port}=wrong"}, {"Cookie": f"token={TOKEN}"}, {"Cookie": '[]=;;,"'}):
        answer = guarded.ask(address, **headers)
        assert answer.status == 403
        assert "token" in answer.text
        assert len(answer.text.splitlines()) == 1
    assert guarded.ask(f"{address}?token=a-token-that-nobody-know").status == 403


def test_the_token_is_asked_once_and_kept_in_a_cookie(guarded: Served) -> None:
    assert guarded.address.endswith(f"/dashboard?token={TOKEN}")
    arrived = guarded.ask(f"/dashboard/studies/1?token={TOKEN}")
    assert arrived.status == 200
    assert "url=/dashboard/studies/1" in arrived.text
    assert TOKEN not in arrived.text
    cookie = arrived.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert guarded.ask("/api/studies/1", Cookie=cookie.partition(";")[0]).status == 200
    assert guarded.ask("/api/studies/1", "DELETE", Cookie=cookie.partition(";")[0]).status == 403


def test_the_way_back_from_the_token_leads_nowhere_else(guarded: Served) -> None:
    arrived = guarded.ask(f'//evil.example/"><script>?token={TOKEN}')
    assert "script>" not in arrived.text
    assert "evil.example" not in arrived.text


def test_on_the_network_an_address_is_a_good_host_and_a_strangers_name_is_not(guarded: Served) -> None:
    cookie = f"hpsearch-dashboard-{guarded.port}={TOKEN}"
    for host in ("192.168.0.7:80", "localhost", socket.gethostname(), "[fe80::1]:80"):
        assert guarded.ask("/api/studies", Host=host, Cookie=cookie).status == 200, host
    assert guarded.ask("/api/studies", Host="evil.example", Cookie=cookie).status == 403


def test_a_token_of_its_own_is_printed_once(study_folder: Path) -> None:
    with serving(study_folder, "--host", "0.0.0.0", "--allow-host", "My.Server") as running:
        token = running.address.partition("?token=")[2]
        assert len(token) >= 32
        assert token not in running.said.read_text()
        assert running.ask("/api/studies", Host="my.server:8080").status == 403
        assert running.ask("/api/studies", Host="my.server:8080", Cookie=f"hpsearch-dashboard-{running.port}={token}").status == 200
        assert token not in " ".join(psutil.Process(running.process.pid).cmdline())


def test_notes_failing_and_deleting_go_through_when_they_are_let(editable: Served) -> None:
    assert editable.ask("/api/studies/1/note", "PUT", body={"body": "mine", "version": next_version(editable)}).status == 204
    assert editable.ask("/api/studies/1").data["note"]["body"] == "mine"
    assert editable.ask("/api/studies/1/2/note", "PUT", body={"body": "of a trial", "version": 1}).status == 204
    # A finished trial is read-only: the request gets through, and optuna-dashboard says no.
    assert editable.ask("/api/trials/1/tell", "POST", body={"state": "Fail"}).status == 500
    assert editable.ask("/api/studies/1", "DELETE", body={"remove_associated_artifacts": True}).status == 204
    assert editable.ask("/api/studies").data["study_summaries"] == []


def test_a_study_is_deleted_though_its_artifacts_are_gone(searched_folder: Path) -> None:
    shutil.rmtree(searched_folder / "runs" / "hpsearch.artifacts")
    (searched_folder / "runs" / "small" / "report.html").unlink()
    with serving(searched_folder, "--runs", "elsewhere", "--storage", STORAGE, "--allow-edit") as running:
        for artifact in running.ask("/api/studies/1").data["artifacts"]:
            missing = running.ask(f"/artifacts/1/{artifact['artifact_id']}")
            assert (missing.status, len(missing.text.splitlines())) == (404, 1)
            assert "--runs" in missing.text
        assert "Traceback" not in running.said.read_text()
        assert running.ask("/api/studies/1", "DELETE", body={}).status == 204


@pytest.mark.parametrize("secret", [False, True], ids=["without a token", "with a token"])
def test_the_browser_is_opened_and_its_command_line_tells_no_token(study_folder: Path, tmp_path: Path, secret: bool) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/opened\ncat "${{1#file://}}" >> {tmp_path}/opened 2>/dev/null\ntrue\n')
    browser.chmod(0o700)
    token = {"HPSEARCH_DASHBOARD_TOKEN": TOKEN} if secret else {}
    with serving(study_folder, "small", "--open", BROWSER=f"{browser} %s", **token) as running:
        until(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text().endswith("\n"))
        command, *page = (tmp_path / "opened").read_text().splitlines()
        assert TOKEN not in command
        assert (f"url={running.address}" in page[0]) if secret else (command == running.address)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_a_page_of_another_site_changes_nothing(editable: Served, headers: dict[str, str]) -> None:
    assert editable.ask("/api/studies/1", "DELETE", **headers).status == 403
    own = {"Origin": editable.origin, "Sec_Fetch_Site": "same-origin", "Host": f"127.0.0.1:{editable.port}"}
    assert editable.ask("/api/studies/1", "DELETE", **own).status == 204


def test_no_value_can_be_made_up_and_no_study_made(editable: Served) -> None:
    for body in ({"state": "Complete", "values": [0.99]}, {"state": 3}, [], {"state": "Fail" + " " * 70_000}):
        assert editable.ask("/api/trials/1/tell", "POST", body=body).status == 403
    assert editable.ask("/api/studies", "POST", body={"study_name": "x", "directions": ["maximize"]}).status == 403
    assert editable.ask("/api/studies/1/rename", "POST", body={"study_name": "x"}).status == 403
    assert editable.ask("/api/trials/1/user-attrs", "POST", body={"user_attrs": {"parameters": 1}}).status == 403


def next_version(served: Served) -> int:
    return int(served.ask("/api/studies/1").data["note"]["version"]) + 1


def test_an_artifact_is_sandboxed_whatever_it_says_it_is(searched_folder: Path) -> None:
    store = searched_folder / "runs" / "hpsearch.artifacts"
    store.mkdir(exist_ok=True)
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{searched_folder}/runs/hpsearch.db")
    paths = []
    for kind in ("text/html", "image/svg+xml", "application/xhtml+xml"):
        page = searched_folder / "page"
        page.write_text("<script>alert(1)</script>")
        number = optuna.artifacts.upload_artifact(
            study_or_trial=study, file_path=str(page), artifact_store=optuna.artifacts.FileSystemArtifactStore(store), mimetype=kind
        )
        paths.append((kind, f"/artifacts/1/{number}"))
    with serving(searched_folder, "small") as running:
        for kind, path in paths:
            for method in ("GET", "HEAD"):
                answer = running.ask(path, method)
                assert answer.status == 200
                assert answer.headers["content-type"] == kind
                policy = answer.headers["content-security-policy"]
                assert "sandbox allow-scripts" in policy
                assert "allow-same-origin" not in policy
                assert "default-src 'none'" in policy
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert "access-control-allow-origin" not in answer.headers


def test_it_works_before_there_is_a_database(folder: Path) -> None:
    with serving(folder) as running:
        assert running.ask("/dashboard").status == 200
        assert running.ask("/api/studies").data == {"study_summaries": []}
        assert hpsearch(folder, "run", "small.toml").returncode == 0
        assert [study["study_name"] for study in running.ask("/api/studies").data["study_summaries"]] == ["small"]


def test_a_study_that_is_not_there_is_said_and_makes_no_database(folder: Path) -> None:
    done = hpsearch(folder, "dashboard", "small", "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no database" in done.stderr
    assert not (folder / "runs").exists()


def test_a_port_that_is_taken_is_said(served: Served, study_folder: Path) -> None:
    done = hpsearch(study_folder, "dashboard", "small", "--port", str(served.port))
    assert done.returncode == 2
    assert f"port {served.port} of 127.0.0.1 is taken" in done.stderr
    assert "--port 0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "no-such-host.invalid"], "must be an address of this machine"),
        (["--host", "192.0.2.1"], "must be an address of this machine"),
        (["--token", "short"], "a token must be 16 to 200 letters"),
        (["--token", "with a space and more"], "a token must be 16 to 200 letters"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_said_in_a_line(study_folder: Path, arguments: list[str], says: str) -> None:
    done = hpsearch(study_folder, "dashboard", "--port", "0", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_it_in_good_order(study_folder: Path, number: int, code: int) -> None:
    with serving(study_folder) as running:
        assert running.ask("/api/studies").status == 200
        assert running.end(number) == code
        assert "Traceback" not in running.said.read_text()


def test_no_password_of_the_storage_is_told(folder: Path, postgres: Postgres) -> None:
    with serving(folder, OPTUNA_STORAGE=postgres.database()) as running:
        for path in ("/dashboard", "/api/studies", "/api/studies/1", "/api/meta", "/csv/1", "/api/studies/99", "/artifacts/1/0"):
            answer = running.ask(path)
            assert PASSWORD not in answer.text + str(answer.headers), path
        for process in (psutil.Process(running.process.pid), *psutil.Process(running.process.pid).children(recursive=True)):
            assert PASSWORD not in " ".join(process.cmdline())
        assert PASSWORD not in running.said.read_text() + running.address


def test_no_formula_survives_in_the_csv(searched_folder: Path) -> None:
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{searched_folder}/runs/hpsearch.db")
    trial = study.ask({"=cmd()": optuna.distributions.CategoricalDistribution(["=cmd()", "+1+cmd()", "@x"])})
    for name, value in {"minus": "-cmd()", "tab": "\tcmd()", "long": "=" + "x" * 200_000, "number": -3.5}.items():
        trial.set_user_attr(name, value)
    study.tell(trial, 0.1)
    with serving(searched_folder, "small") as running:
        answer = running.ask("/csv/1")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.body)
    csv.field_size_limit(1_000_000)
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    cells = [cell for row in rows for cell in row]
    assert "'-cmd()" in cells
    assert "-3.5" in cells
    assert not [cell[:20] for cell in cells if cell[:1] in ("=", "+", "@", "\t", "\r") or cell.startswith("-c")]
    assert len(rows) == 10


def test_a_trial_failed_in_the_dashboard_ends_in_its_worker_which_goes_on(folder: Path) -> None:
    searching = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_trainer", "run", "small.toml", "--workers", "1"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAKE_EPOCH_SECONDS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with serving(folder, "--allow-edit") as running:
            trial = until(lambda: failed_half_way(running))
            assert searching.wait(120) == 0
    finally:
        if searching.poll() is None:
            searching.send_signal(signal.SIGTERM)
            searching.wait(30)
    rows = list(csv.DictReader(io.StringIO(hpsearch(folder, "show", "small", "--csv").stdout)))
    assert {int(row["trial"]) for row in rows if row["state"] == "fail"} == {trial["number"]}
    assert sum(row["state"] == "complete" for row in rows) == 7
    log = "".join(path.read_text() for path in (folder / "runs" / "small" / "logs").iterdir())
    assert f"trial {trial['number']} was ended from outside; this worker continues with the next trial" in log
    assert log.count("Traceback") == 0


def failed_half_way(served: Served) -> dict[str, Any] | None:
    """A trial that was failed while it ran; None if none runs, or if it ended first."""
    trial = half_way(served)
    if trial is None or served.ask(f"/api/trials/{trial['trial_id']}/tell", "POST", body={"state": "Fail"}).status != 204:
        return None
    return trial


def half_way(served: Served) -> dict[str, Any] | None:
    """A trial that runs and has an epoch on record."""
    if not served.ask("/api/studies").data["study_summaries"]:
        return None
    trials = served.ask("/api/studies/1").data["trials"]
    return next((trial for trial in trials if trial["state"] == "Running" and trial["intermediate_values"]), None)


def test_a_study_deleted_in_the_dashboard_ends_its_search_in_a_line(folder: Path) -> None:
    with serving(folder, "--allow-edit") as running, (folder / "said").open("w") as said:
        searching = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_trainer", "run", "small.toml", "--workers", "1"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "FAKE_EPOCH_SECONDS": "0.5"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        until(lambda: half_way(running))
        assert running.ask("/api/studies/1", "DELETE", body={}).status == 204
        assert searching.wait(60) not in (0, None)
    told = (folder / "said").read_text()
    assert "Traceback" not in told
    assert "'small'" in told
