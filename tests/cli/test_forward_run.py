"""`kecs port-forward run`, `down` and `export` with a scripted agent."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import msgspec
import pytest
from tests.client.fakes import row

from kecs.cli import config_file, forward_follow
from kecs.cli.session import Session
from kecs.client import launch
from kecs.client.rpc_types import ApplyReply
from kecs.errors import ExitCode, KecsError

FILE = """\
version: "1"
forwards:
  - name: web
    type: service
    cluster: prod
    service: web
    localPort: 8080
    targetPort: 80
"""
WEB = row(name="web", localPort=8080)
HELD = row(name="web", localPort=8080, state="WAITING", reason="there is no service `prod/web` yet")
BY_TAGS = row(
    id="pf-00000002",
    name="worker",
    type="task",
    service=None,
    cluster="dev",
    tags={"Component": "worker"},
    localPort=9229,
    targetPort=9229,
    matched=3,
    chosen={"taskId": "0123456789abcdef0123456789abcdef", "createdAt": 4_000_000_000.0},
)


def step(sign: str, forward: object = None, name: str = "web", **members: object) -> dict[str, object]:
    return {"sign": sign, "name": name, "target": "prod/web:80", "forward": forward} | members


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "port-forward.yaml"
    path.write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def running(home, file):
    home.instance()
    return home


def asked(home, method: str) -> list[dict[str, object]]:
    """Return the parameters of all calls of `method`."""
    calls = [json.loads(line) for line in home.asked("agent").splitlines()]
    return [call["params"] for call in calls if call["method"] == method]


def test_the_plan_says_what_was_done_and_where_each_is_reached(kecs, running):
    running.daemons_do(
        agent={
            "apply": {
                "steps": [
                    step("+", WEB),
                    step("~", BY_TAGS, "worker", changes=["localPort 9228 -> 9229"]),
                    step("=", HELD, "late"),
                    step("-", row(name="old"), "old"),
                ],
                "warnings": ["the port 80 is low"],
            }
        }
    )
    ran = kecs("port-forward", "run", "--config", "port-forward.yaml")

    assert ran.out.splitlines() == [
        "+ web     http://127.0.0.1:8080 -> prod/web:80  ACTIVE",
        (
            "~ worker  http://127.0.0.1:9229 -> dev/Component=worker:9229  ACTIVE "
            "(task 01234567, 0s old, the newest of 3)"
        ),
        "    localPort 9228 -> 9229",
        "= late    http://127.0.0.1:8080 -> prod/web:80  WAITING (there is no service `prod/web` yet)",
        "- old     prod/web:80",
    ]
    assert ran.code == 0
    assert "warning: the port 80 is low" in ran.err


def test_the_agent_is_told_the_real_path_and_what_the_file_says(kecs, running, file):
    (file.parent / "link.yaml").symlink_to(file)
    kecs("pf", "run", "-c", "link.yaml", "--names")

    assert asked(running, "forward.apply") == [
        {
            "owner": str(file.resolve()),
            "forwards": [
                {
                    "target": {"type": "service", "cluster": "prod", "service": "web"},
                    "name": "web",
                    "localPort": 8080,
                    "targetPort": 80,
                    "protocol": "tcp",
                    "retry": {},
                }
            ],
            "auto": None,
            "names": True,
            "dryRun": False,
            "wait": None,
        }
    ]


def test_the_file_of_this_folder_is_the_default(kecs, running, file):
    assert kecs("pf", "run").code == 0
    assert asked(running, "forward.apply")[0]["owner"] == str(file.resolve())


def test_a_dry_run_names_targets_and_says_that_nothing_was_changed(kecs, running):
    running.daemons_do(
        agent={"apply": {"steps": [step("+"), step("~", WEB, changes=["route auto -> direct"])]}}
    )
    ran = kecs("pf", "run", "--dry-run")

    assert ran.out.splitlines() == ["+ web  prod/web:80", "~ web  prod/web:80", "    route auto -> direct"]
    assert "1 to start, 1 to change, 0 to keep, 0 to stop; nothing was changed" in ran.err
    assert asked(running, "forward.apply")[0]["dryRun"] is True


def test_a_plan_as_data(kecs, running):
    running.daemons_do(agent={"apply": {"steps": [step("=", WEB)], "namesPort": 20009}})
    plan = json.loads(kecs("pf", "run", "-o", "json").out)
    assert plan["namesPort"] == 20009
    assert [(one["sign"], one["forward"]["localPort"]) for one in plan["steps"]] == [("=", 8080)]


def test_names_are_shown_below_what_they_lead_to(kecs, running):
    running.daemons_do(agent={"apply": {"steps": [step("+", WEB), step("=", BY_TAGS)], "namesPort": 20009}})
    assert kecs("pf", "run", "--names").out.splitlines()[1::2] == [
        "    http://web.prod.localhost:20009/",
        "services answer by name: http://SERVICE.CLUSTER.localhost:20009/",
    ]


def test_names_that_this_file_does_not_wish_are_not_shown(kecs, running):
    running.daemons_do(agent={"apply": {"steps": [step("+", WEB)], "namesPort": 20009}})
    assert "20009" not in kecs("pf", "run").out


def test_wait_returns_when_all_serve_and_prints_them_so(kecs, running):
    running.daemons_do(
        agent={"apply": {"steps": [step("+", HELD)]}, "forwards": [HELD], "changes": [{"forwards": [WEB]}]}
    )
    ran = kecs("pf", "run", "--wait")
    assert (ran.code, ran.out) == (0, "+ web  http://127.0.0.1:8080 -> prod/web:80  ACTIVE\n")


def test_a_wait_in_vain_is_an_error_after_the_plan(kecs, running):
    running.daemons_do(agent={"apply": {"steps": [step("+", HELD)]}, "forwards": [HELD]})
    ran = kecs("pf", "run", "--wait=0.1")
    assert ran.code == 1
    assert ran.out.startswith("+ web  http://127.0.0.1:8080")
    assert "error: `web` is WAITING after 0.1 s: there is no service `prod/web` yet" in ran.err
    assert "hint: " in ran.err


def test_nobody_waits_for_a_forward_that_has_ended(kecs, running):
    ended = row(name="web", state="ENDED", reason="its task stopped")
    running.daemons_do(agent={"apply": {"steps": [step("+", HELD)]}, "forwards": [ended]})
    ran = kecs("pf", "run", "--wait=60")
    assert ran.code == 1
    assert "`web` is ENDED" in ran.err


def test_a_conflict_is_the_agents_and_nothing_is_printed(fails, running):
    failure = {
        "code": -32000,
        "message": "port 8080 belongs to `x`",
        "data": {"hint": "stop it", "exitCode": 4},
    }
    running.forwards({"name": "x"})
    launch.launch("agent", running.paths)
    running.daemons_do(agent={"refuses": failure})
    launch.restart_agent(running.paths)
    fails(4, "pf", "run", says="port 8080 belongs to `x`", hint="stop it")


@pytest.mark.parametrize(
    "command", [("run",), ("run", "--dry-run"), ("run", "--watch"), ("down",), ("export",)]
)
def test_on_a_stopped_instance_nothing_is_started(fails, home, file, command):
    home.instance(desired="stopped")
    fails(5, "port-forward", *command, hint="kecs start")
    assert home.alive() == []


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (FILE.replace("localPort", "localport"), 2, "port-forward.yaml:7:5: forwards[0].localport: "),
        (None, 3, "there is no file `port-forward.yaml`"),
    ],
)
@pytest.mark.parametrize("option", [(), ("--watch",), ("--dry-run",)])
def test_a_wrong_file_is_an_error_before_anything_is_started(fails, running, file, text, code, says, option):
    file.unlink()
    if text is not None:
        file.write_text(text)
    fails(code, "pf", "run", *option, says=says)
    assert running.alive() == []


class Edits:
    """Stands for the follower: each look is the next edit of the file, the last one Ctrl-C."""

    def __init__(self, path: Path, *edits) -> None:
        self.path = path
        self.left = list(edits)

    def look(self) -> bool:
        if not self.left:
            raise KeyboardInterrupt
        return self.left.pop(0)() is not False


@pytest.fixture
def followed(monkeypatch, file):
    """Follow the file through edits; return how many forwards each file that was applied has."""
    monkeypatch.setattr(config_file, "LOOK", 0.0)

    def follow(*edits, refuse: int | None = None) -> list[int]:
        applied: list[int] = []

        def apply(spec) -> None:
            if len(spec.forwards) == refuse:
                raise KecsError("port 9 is taken", "end its holder", ExitCode.CONFLICT)
            applied.append(len(spec.forwards))

        good = config_file.read(file, file.name)
        with pytest.raises(KeyboardInterrupt):
            forward_follow.follow(Session(), file.name, Edits(file, *edits), good, apply)
        return applied

    return follow


TWO = FILE + "  - {name: api, type: service, service: api, targetPort: 80}\n"


def test_a_file_is_applied_at_each_change(followed, file):
    assert followed(
        lambda: file.write_text(TWO), lambda: False, lambda: file.write_text(FILE), lambda: file.touch()
    ) == [2, 1]


def test_a_wrong_file_keeps_the_last_good_state_and_says_so(followed, file, capsys):
    def wrong() -> None:
        file.write_text(TWO.replace("type:", "typ:"))

    assert followed(wrong, lambda: file.write_text(FILE), lambda: file.write_text(TWO)) == [2]
    said = capsys.readouterr().err
    assert "port-forward.yaml:4:5: forwards[0].typ: " in said
    assert said.count("the forwards stay as they are") == 1
    assert "says what it said before" in said


def test_a_file_that_goes_away_keeps_its_forwards(followed, file, capsys):
    assert followed(file.unlink, lambda: file.write_text(TWO)) == [2]
    assert "there is no file `port-forward.yaml`\nthe forwards stay as they are" in capsys.readouterr().err


def test_a_file_that_could_not_be_applied_is_tried_again_when_it_is_saved(followed, file, capsys):
    assert followed(lambda: file.write_text(TWO), lambda: file.touch(), refuse=2) == []
    said = capsys.readouterr().err
    assert said.count("port 9 is taken") == 2
    assert "hint: end its holder" in said


def test_watch_goes_on_by_itself_and_ctrl_c_leaves_the_forwards(kecs, running, monkeypatch):
    def follow(*_arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(forward_follow, "follow", follow)
    running.daemons_do(agent={"apply": {"steps": [step("=", WEB)]}, "forwards": [WEB]})
    ran = kecs("pf", "run", "--watch")
    assert ran.code == 130
    assert "following `port-forward.yaml`; Ctrl-C leaves the forwards" in ran.err
    assert asked(running, "forward.stop") == asked(running, "forward.down") == []
    assert [one.name for one in threading.enumerate() if one.name == "tell of forwards"] == []


def owned(file: Path, **members: object) -> dict[str, object]:
    return row(id="pf-00000001", name="ours", owner=str(file.resolve()), **members)


def told(monkeypatch, file, *changes, plan=None) -> None:
    """Tell of changes to the forwards of a file, which the plan said already or not."""
    teller = forward_follow.Teller(Session(), file.resolve())
    if plan is not None:
        teller.knows(plan)

    def stream(_session, **_):
        yield from changes
        teller.leave()

    monkeypatch.setattr(forward_follow.forward_changes, "changes", stream)
    teller.tell()


def lines(capsys) -> list[str]:
    return [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]


def test_what_watch_tells_is_of_the_file_only(file, monkeypatch, capsys):
    ours, other = owned(file, state="WAITING"), row(id="pf-00000002", name="other", state="WAITING")
    told(monkeypatch, file, ([ours, other], []), ([], [ours["id"], other["id"]]))
    assert lines(capsys) == ["ours  http://127.0.0.1:20000 -> prod/web:80  WAITING", "ours  stopped"]


def test_what_the_plan_said_is_not_told_again(file, monkeypatch, capsys):
    ours, gone = owned(file), row(id="pf-00000002", name="gone", owner=str(file.resolve()))
    plan = msgspec.convert({"steps": [step("+", ours), step("-", gone)]}, ApplyReply)
    told(monkeypatch, file, ([ours], []), ([], [gone["id"]]), ([ours | {"state": "WAITING"}], []), plan=plan)
    assert lines(capsys) == ["ours  http://127.0.0.1:20000 -> prod/web:80  WAITING"]


def test_down_names_what_it_stopped_though_the_file_is_gone(kecs, running, file):
    running.forwards({"name": "web"})
    running.daemons_do(agent={"forwards": [WEB]})
    file.unlink()
    assert kecs("pf", "down", "--config", "port-forward.yaml").out == "web  stopped\n"
    assert asked(running, "forward.down") == [{"owner": str(file.resolve())}]


def test_down_of_a_file_that_started_nothing_starts_no_agent(kecs, running):
    ran = kecs("pf", "down")
    assert (ran.code, ran.out) == (0, "")
    assert "has started no forward" in ran.err
    assert running.alive() == []


def test_the_file_of_the_readme_is_right(tmp_path):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "f.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    spec = config_file.read(tmp_path / "f.yaml", "f.yaml")
    assert [one.name for one in spec.forwards] == ["web", "debug"]
    assert spec.names
