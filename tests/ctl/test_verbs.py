"""What each verb asks of the service, answers to programs, and ends with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Variant

from logindguard.ctl import client
from logindguard.ctl.app import RUN
from logindguard.ctl.command_line import VERBS
from logindguard.ctl.exits import MEANING, Exit
from logindguard.ctl.roots import Roots

from . import host
from .conftest import Command, program
from .fake_service import NOW_USEC, PLAN, PROPERTIES, RECORDS, RESIDUES, SEC, Running

ERROR = "org.logindguard1.Error."
DBUS_ERROR = "org.freedesktop.DBus.Error."
JOB = {"kind": "sweep", "started_usec": NOW_USEC - 3 * SEC, "dying_before": 1000}
READ_THE_KERNEL = {"status", "list", "explain", "inventory", "metrics", "doctor", "restore", "config"}
DONE = {
    **JOB,
    "state": "done",
    "dying_after": 3,
    "freed_bytes": 4096,
    "outcome": "partial",
    "reason": "dirty",
}


def answer(command: Command, *argv: str) -> Any:
    ran = command(*argv, "--json=short")
    assert ran.status == 0
    assert ran.err == ""
    assert ran.out.count("\n") == 1
    return json.loads(ran.out)


def test_every_verb_runs_something_and_every_status_has_a_meaning() -> None:
    assert RUN.keys() == VERBS.keys()
    assert MEANING.keys() == set(Exit)
    assert set(client.STATUS.values()) <= MEANING.keys()


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("argv", "sentence"),
        [
            (["frobnicate"], "Unknown command 'frobnicate', see 'logindguardctl --help'."),
            (["reclaim", "ssh"], "'ssh' is no session; a unit is named in full, such as ssh.service."),
            (["hstory"], "Unknown command 'hstory', did you mean 'history'?"),
            (["list", "x"], "Too many arguments for 'list'."),
            (["sweep", ""], "An argument is empty."),
            (["show", "session-\udcff.scope"], "An argument is not valid text"),
            (["show"], "'show' needs an argument: ID|UNIT."),
            (["--frob"], "Unrecognized arguments: --frob."),
            (["--stat"], "Unrecognized arguments: --stat."),
            (["list", "--wait"], "'list' does not take --wait."),
            (["status", "-n", "many"], "-n expects a number, not 'many'."),
            (["history", "--since=whenever"], "--since= expects a time such as"),
            (["history", "--since=now", "--until=-1h"], "--since= must be before --until=."),
            (["history", "--user=nobody-of-that-name"], "There is no user"),
            (["pause", "--for=long"], "--for= expects a duration such as '30min', not 'long'."),
            (["pause", "--for=0"], "--for= expects more than 0."),
            (["top", "--delay=x"], "--delay= expects a duration"),
            (["top", "--delay=1ms"], "--delay= must be at least 100ms."),
            (["list", "--json=xml"], "Argument --json: invalid choice: 'xml'"),
            (["list", "--json"], "Argument --json: expected one argument."),
            (["show", "9f3c"], "'9f3c' is the beginning of several records"),
            (["show", "9f3cbb", "-p", "Freed-Bytes"], "Properties are written like 'freed_bytes'"),
        ],
    )
    def test_one_sentence(self, command: Command, running: Running, argv: list[str], sentence: str) -> None:
        ran = command(*argv)
        assert ran.status == (Exit.NOT_FOUND if "no user" in sentence else Exit.USAGE)
        assert ran.out == ""
        assert ran.err.startswith(sentence)
        assert ran.err.count("\n") == 1


class TestWithoutService:
    @pytest.mark.parametrize("verb", sorted(VERBS.keys() - READ_THE_KERNEL))
    def test_the_rest_fails_with_one_sentence(self, command: Command, verb: str) -> None:
        argument = {"show": ["abcd"], "reclaim": ["3"]}.get(verb, [])
        ran = command(verb, *argument)
        assert (ran.status, ran.out) == (Exit.UNAVAILABLE, "")
        assert ran.err == "The service does not run: 'systemctl start logindguard' starts it.\n"

    @pytest.mark.parametrize("verb", ["status", "list"])
    def test_the_kernel_is_read_and_it_is_said(self, command: Command, roots: Roots, verb: str) -> None:
        host.debian(roots)
        ran = command(verb)
        assert ran.status == 0
        assert "user-61001.slice" in ran.out
        assert ran.err.endswith("read from the kernel directly.\n")
        assert command(verb, "--quiet").err == ""

    def test_no_bus_at_all(self, command: Command) -> None:
        command.address = "unix:path=/nonexistent/bus"
        ran = command("check")
        assert (ran.status, ran.out) == (Exit.UNAVAILABLE, "")
        assert ran.err == "There is no system bus to reach the service by.\n"

    def test_no_memory_controller(self, command: Command, roots: Roots) -> None:
        (roots.proc / "self").mkdir(parents=True)
        (roots.proc / "self/mountinfo").write_text("")
        ran = command("list", "--quiet")
        assert (ran.status, ran.out) == (Exit.UNAVAILABLE, "")
        assert ran.err == "No cgroup hierarchy with the memory controller is mounted.\n"

    @pytest.mark.parametrize(
        ("path", "text", "sentence"),
        [
            ("/", "nonsense\n", "The cgroup tree cannot be read: /: cgroup.stat: "),
            ("/user.slice", "nr_dying_descendants many\n", "The cgroup tree cannot be read: /user.slice: "),
        ],
    )
    @pytest.mark.parametrize("verb", ["status", "list"])
    def test_a_kernel_that_answers_nonsense(
        self, command: Command, roots: Roots, verb: str, path: str, text: str, sentence: str
    ) -> None:
        tree = host.debian(roots)
        (tree.directory(path) / "cgroup.stat").write_text(text)
        ran = command(verb, "--quiet")
        assert (ran.status, ran.out) == (Exit.KERNEL, "")
        assert ran.err.startswith(sentence)
        assert ran.err.count("\n") == 1

    @pytest.mark.parametrize("text", [None, "file many\n"], ids=["gone", "nonsense"])
    def test_one_whose_bytes_cannot_be_had(self, command: Command, roots: Roots, text: str | None) -> None:
        """It is listed all the same."""
        stat = host.debian(roots).directory("/user.slice/user-61001.slice") / "memory.stat"
        stat.unlink()
        if text is not None:
            stat.write_text(text)
        rows = {row["path"]: row for row in answer(command, "list", "--quiet")}
        assert rows["/user.slice/user-61001.slice"]["dying"] == 4
        assert rows["/user.slice/user-61001.slice"]["file_bytes"] == 0
        assert rows["/user.slice"]["dying"] == 1

    def test_restore_from_a_ledger_that_is_none(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        roots.run.mkdir()
        (roots.run / "logindguard").mkdir(mode=0o700)
        (roots.run / "logindguard/ledger").write_text("[3]")
        ran = command("restore")
        assert (ran.status, ran.out) == (Exit.KERNEL, "")
        assert "memory.min was not put back: " in ran.err

    def test_restore_by_ourselves(self, command: Command, roots: Roots) -> None:
        tree = host.debian(roots)
        directory = tree.directory("/user.slice")
        (directory / "memory.min").write_text("8192\n")
        roots.run.mkdir()
        (roots.run / "logindguard").mkdir(mode=0o700)
        entry = {
            "inode": directory.stat().st_ino,
            "path": "/user.slice",
            "old_bytes": 0,
            "ours_bytes": 8192,
        }
        (roots.run / "logindguard/ledger").write_text(json.dumps([entry]))
        ran = command("restore")
        assert ran.status == 0
        assert ran.out == "Put back 1 value of memory.min: 1 put back, 0 changed by others since, 0 gone.\n"
        assert tree.memory_min("/user.slice") == "0"
        assert command("restore").out == "Nothing was left to put back.\n"

    def test_only_root_restores(
        self, command: Command, roots: Roots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        ran = command("restore", "--quiet")
        assert (ran.status, ran.out) == (Exit.DENIED, "")
        assert ran.err == "Without the running service only root can put memory.min back.\n"

    def test_a_name_that_is_given_up(self, command: Command, running: Running) -> None:
        running.disown()
        assert command("check").status == Exit.UNAVAILABLE


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "status", "sentence"),
        [
            (f"{ERROR}NoSuchUnit", Exit.NOT_FOUND, "As the test wants it."),
            (f"{ERROR}Busy", Exit.TEMPORARY, "As the test wants it."),
            (f"{ERROR}Paused", Exit.TEMPORARY, "As the test wants it."),
            (f"{ERROR}NotSupported", Exit.UNAVAILABLE, "As the test wants it."),
            (f"{ERROR}InvalidConfig", Exit.SETTINGS, "As the test wants it."),
            (f"{ERROR}RestoreFailed", Exit.KERNEL, "As the test wants it."),
            (f"{ERROR}Failed", Exit.INTERNAL, "As the test wants it."),
            (f"{ERROR}SomethingNew", Exit.INTERNAL, "As the test wants it."),
            (f"{DBUS_ERROR}InvalidArgs", Exit.USAGE, "As the test wants it."),
            (f"{DBUS_ERROR}AccessDenied", Exit.DENIED, "Not permitted; try as root, or ask the"),
            (f"{DBUS_ERROR}InteractiveAuthorizationRequired", Exit.DENIED, "Not permitted without a"),
            (f"{DBUS_ERROR}LimitsExceeded", Exit.TEMPORARY, "As the test wants it."),
            (f"{DBUS_ERROR}UnknownMethod", Exit.PROTOCOL, "The running service is of another version: as"),
        ],
    )
    def test_each_becomes_a_sentence_and_a_status(
        self, command: Command, running: Running, name: str, status: Exit, sentence: str
    ) -> None:
        running.service.errors["Sweep"] = name
        ran = command("sweep")
        assert (ran.status, ran.out) == (status, "")
        assert ran.err.lower().startswith(sentence.lower())
        assert ran.err.count("\n") == 1

    def test_no_answer(self, command: Command, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "CALL_SEC", 0.2)
        running.service.silent.add("Sweep")
        ran = command("sweep")
        assert ran.status == Exit.TEMPORARY
        assert ran.err == "The service did not answer in time; see 'systemctl status logindguard'.\n"

    def test_a_fault_of_ours_is_no_answer(
        self, command: Command, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running.service.properties["DyingCount"] = Variant("s", "many")
        ran = command("check")
        assert ran.status == Exit.INTERNAL
        assert ran.err.startswith("Internal error: ValueError(")


class TestJson:
    """Keys are there to stay: programs rely on them."""

    def test_status(self, command: Command, running: Running) -> None:
        found = answer(command, "status")
        assert list(found) == [
            *("source", "version", "mode", "mode_reason", "backend", "paused", "pause_reason"),
            *("cgroup_version", "kernel_features", "config_files", "dying_count", "residue_bytes"),
            *("teardowns_total", "reclaimed_bytes_total", "stolen_pages_total"),
            *("last_sweep_timestamp", "last_sweep_usec", "sweep_paused", "reclaims_total", "residues"),
        ]
        assert len(found) == len(PROPERTIES) + 3
        assert found["reclaims_total"][0] == {"way": "before", "outcome": "released", "count": 12}

    def test_list(self, command: Command, running: Running) -> None:
        rows = answer(command, "list")
        assert rows == [
            {**row, **({"user": "alice"} if "uid" in row else {})}
            for row in (RESIDUES[3], RESIDUES[1], RESIDUES[0], RESIDUES[2])
        ]

    def test_list_of_the_kernel(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        rows = json.loads(command("list", "-j").out)
        kinds = ["file_bytes", "mapped_bytes", "dirty_bytes", "writeback_bytes", "shmem_bytes", "anon_bytes"]
        assert list(rows[0])[: 3 + len(kinds)] == ["path", "inode", "dying", *kinds]
        assert rows[0]["uid"] == 61001

    def test_history(self, command: Command, running: Running) -> None:
        rows = answer(command, "history")
        assert [row["id"] for row in rows] == [record["id"] for record in reversed(RECORDS)]
        assert rows[2]["teardowns"][0]["user"] == "alice"
        assert {key: value for key, value in rows[3].items() if key != "teardowns"} == {
            key: value for key, value in RECORDS[0].items() if key != "teardowns"
        }

    def test_show(self, command: Command, running: Running) -> None:
        assert answer(command, "show", "9f3cbb", "-p", "id,freed_bytes", "-p", "way") == {
            "id": RECORDS[1]["id"],
            "freed_bytes": 4_900_000,
            "way": "after",
        }

    def test_check(self, command: Command, running: Running) -> None:
        assert answer(command, "check") == {"dying_count": 1249, "threshold": 2000, "well": True}

    def test_top(self, command: Command, running: Running) -> None:
        found = answer(command, "top")
        assert list(found) == ["realtime_usec", "dying_count", "slices"]
        assert found["slices"][0] == {"slice": "/system.slice", "dying": 1234, "cache_bytes": 1283457024}

    def test_cgroup_v1_counts_no_dying_by_cgroup(self, command: Command, running: Running) -> None:
        running.service.properties["CgroupVersion"] = Variant("u", 1)
        assert all("dying" not in row for row in answer(command, "list"))
        assert answer(command, "top")["slices"][0] == {"slice": "/system.slice", "cache_bytes": 1283457024}
        listed = " ".join(command("list").out.split())
        assert "system.slice - - 1.2G" in listed
        assert listed.endswith("1249 dying memcgs on this machine, which cgroup v1 does not count by cgroup.")

    def test_doctor(self, command: Command, running: Running, roots: Roots) -> None:
        host.debian(roots)
        found = answer(command, "doctor")
        assert list(found) == ["verdict", "leaks", "checks"]
        assert list(found["checks"][0]) == ["check", "state", "finding", "why", "command"]

    def test_config(self, command: Command, roots: Roots) -> None:
        host.settings(roots, "sweep:\n  interval: 10min\n")
        rows = {row["key"]: row for row in answer(command, "config")}
        assert rows["sweep.interval"] == {
            "key": "sweep.interval",
            "field": "interval_usec",
            "value": 600 * SEC,
            "origin": "host/etc/logindguard/config.yaml:2",
        }
        assert rows["roots"]["value"] == []

    def test_plan(self, command: Command, running: Running) -> None:
        assert answer(command, "reclaim", "session-3.scope", "--dry-run") == PLAN

    def test_pretty_and_off(self, command: Command, running: Running) -> None:
        assert command("check", "--json=pretty").out.splitlines()[1] == '\t"dying_count": 1249,'
        assert command("check", "-j").out == '{"dying_count":1249,"threshold":2000,"well":true}\n'
        assert command("check", "-j", columns=80).out.count("\n") == 5
        assert command("check", "-j", "--json=off").out.startswith("1249 dying memcgs")


class TestCheck:
    @pytest.mark.parametrize(("threshold", "status"), [("1249", 0), ("1248", 1), ("0", 1)])
    def test_the_status_answers(
        self, command: Command, running: Running, threshold: str, status: int
    ) -> None:
        ran = command("check", f"--threshold={threshold}")
        assert ran.status == status
        assert f"threshold of {threshold}" in ran.out
        assert command("check", f"--threshold={threshold}", "-q").out == ""


class TestHistory:
    def ids(self, command: Command, *argv: str) -> list[str]:
        ran = command("history", "--json=short", *argv)
        assert ran.status == 0
        return [row["id"].rstrip("0") for row in json.loads(ran.out)]

    @pytest.mark.parametrize(
        ("argv", "ids"),
        [
            (["--since", "-1h"], ["9f3cbb", "9f3c0a"]),
            (["--since=today", "--until", "2h ago"], ["1b22"]),
            (["-S-10d", "-r"], ["9f3c0a", "9f3cbb", "1b22"]),
            (["-n", "1"], ["9f3c0a"]),
            (["-u", "session-*.scope"], ["9f3cbb"]),
            (["--unit", "user.slice"], ["1b22", "9f3c0a"]),
            (["--user=61002"], ["1b22"]),
            (["--user=61001", "-n0"], []),
        ],
    )
    def test_filters(self, command: Command, running: Running, argv: list[str], ids: list[str]) -> None:
        assert self.ids(command, *argv) == ids

    def test_bounds_are_the_services_business(self, command: Command, running: Running) -> None:
        self.ids(command, "--since=@1000", "--until=@2000.5", "-n", "7")
        assert running.service.bodies[-1] == ("ListReclaims", [1000 * SEC, 2000 * SEC + 500_000, 7])


class TestShow:
    def test_by_id_prefix_or_unit(self, command: Command, running: Running) -> None:
        for name in (RECORDS[1]["id"], "9f3cbb", "session-67.scope"):
            ran = command("show", name, "--value", "-p", "id")
            assert (ran.status, ran.out) == (0, f"{RECORDS[1]['id']}\n")

    @pytest.mark.parametrize("name", ["beef", "session-68.scope"])
    def test_none(self, command: Command, running: Running, name: str) -> None:
        ran = command("show", name)
        assert ran.status == Exit.NOT_FOUND
        assert ran.err.startswith("There is no record")

    def test_a_key_without_a_value(self, command: Command, running: Running) -> None:
        ran = command("show", "9f3c0a", "-p", "release_usec,id", "--value")
        assert (ran.status, ran.out) == (0, f"{RECORDS[0]['id']}\n")


class TestActions:
    @pytest.mark.parametrize(
        ("argv", "member", "values"),
        [
            (["sweep"], "Sweep", [{}]),
            (["sweep", "user.slice"], "Sweep", [{"path": Variant("s", "/user.slice")}]),
            (["sweep", "--dry-run"], "Sweep", [{"dry_run": Variant("b", True)}]),
            (["reclaim", "3"], "ReclaimSession", ["3", {}]),
            (["reclaim", "c1"], "ReclaimSession", ["c1", {}]),
            (["reclaim", "user@1000.service"], "ReclaimUnit", ["user@1000.service", {}]),
            (
                ["reclaim", "run-1.scope", "--dry-run"],
                "ReclaimUnit",
                ["run-1.scope", {"dry_run": Variant("b", True)}],
            ),
            (["pause"], "Pause", [0]),
            (["pause", "--for=1h 30min"], "Pause", [5400 * SEC]),
            (["pause", "--for", "90"], "Pause", [90 * SEC]),
            (["resume"], "Resume", []),
            (["reload"], "Reload", []),
            (["restore"], "Restore", []),
        ],
    )
    def test_what_is_asked_for(
        self, command: Command, running: Running, argv: list[str], member: str, values: list[Any]
    ) -> None:
        ran = command(*argv)
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.count("\n") >= 1
        assert running.service.bodies == [(member, values)]
        assert command(*argv, "--quiet", "--no-legend").err == ""

    def test_root_is_not_asked_for_a_password(self, command: Command, running: Running) -> None:
        assert command("resume").status == 0
        assert running.service.flags[-1] == 0

    def test_others_are_asked_on_their_terminal(
        self, command: Command, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By polkit's agent, which is there before the call and gone after it; never for looking."""
        program(
            command.directory, "agent", 'echo "$@" >>"$0.said"; eval "exec ${1#--notify-fd=}>&-"; sleep 60'
        )
        monkeypatch.setattr("logindguard.ctl.agent.AGENT", command.directory / "agent")
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        command.typing = True
        assert command("list").status == 0
        assert command("resume", "--no-ask-password").status == 0
        assert not (command.directory / "agent.said").exists()
        assert set(running.service.flags) == {0}
        assert command("resume").status == 0
        assert running.service.flags[-1] == 4  # ALLOW_INTERACTIVE_AUTHORIZATION
        assert (command.directory / "agent.said").read_text().endswith(" --fallback\n")
        monkeypatch.setattr("logindguard.ctl.agent.AGENT", command.directory / "none")
        assert command("resume").status == 0

    @pytest.mark.parametrize("state", ["done", "failed", "canceled"])
    def test_waiting(self, command: Command, running: Running, state: str) -> None:
        going = {**JOB, "state": "running", "dying_after": 400, "freed_bytes": 1024}
        running.service.job_states = [going, {**DONE, "state": state}]
        ran = command("sweep", "--wait")
        assert ran.status == (0 if state == "done" else 1)
        told = {"done": "is done", "failed": "failed", "canceled": "was canceled"}[state]
        assert ran.out == f"Job 7 {told}: released 4K, dying memcgs 1000 -> 3; dirty.\n"
        running.service.job_states = [{**DONE, "state": state}]
        assert json.loads(command("sweep", "-w", "-j").out) == {"id": 7, **DONE, "state": state}

    def test_the_end_is_seen_without_the_signal(self, command: Command, running: Running) -> None:
        """And with it at once: both ways lead to the list of jobs."""
        running.service.job_states = [{**JOB, "state": "running"}] * 3 + [DONE]
        assert command("reclaim", "3", "--wait").status == 0


class TestSettings:
    def test_wrong_ones(self, command: Command, roots: Roots) -> None:
        file = host.settings(roots, "sweep:\n  interval: soon\n")
        ran = command("config")
        assert (ran.status, ran.out) == (Exit.SETTINGS, "")
        assert ran.err.startswith(f"{file}:2: sweep.interval expects a duration")

    def test_not_for_us(self, command: Command, roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
        host.settings(roots, "log_level: info\n")

        def refused(*_: object, **__: object) -> int:
            raise PermissionError(13, os.strerror(13))

        with monkeypatch.context() as patch:
            patch.setattr("logindguard.config_file.os.open", refused)
            ran = command("config")
        assert ran.status == Exit.DENIED
        assert "cannot be read: Permission denied" in ran.err


def test_the_readme_has_the_table_of_exit_statuses() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text().replace("`", "")
    for status, meaning in MEANING.items():
        assert f"| {status.value} | {meaning} |" in readme
