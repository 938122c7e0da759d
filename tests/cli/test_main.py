"""The `infini-eval` command itself: help, typos, completion, launching; mistakes in one line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from infini_eval.cli import launch
from infini_eval.cli.flags import add_flag, make_parser
from infini_eval.cli.main import COMMANDS, GROUPS, command_parser, load_command, main
from infini_eval.distributed import torchrun

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"^ *(infini-eval|torchrun|python) ", re.MULTILINE)


def ended(argv: list[str], capsys) -> str:
    """The message of a command that ends with status 2."""
    try:
        status = main(argv)
    except SystemExit as left:
        status = left.code
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    return output.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["passky"], "error: unknown command 'passky'; did you mean passkey?\n"),
        (["help", "rnu"], "error: unknown command 'rnu'; did you mean run?\n"),
        (["passkey", "--ckpt-pth", "x"], "unknown flag --ckpt-pth; did you mean --ckpt-path?"),
        (["passkey", "--num_digit=3"], "unknown flag --num_digit; did you mean --num_digits?"),
        (["plan", "--model", "llama-4-scot", "--context", "1k"], "'llama-4-scot'; did you mean llama-4-scout?"),
        (["inspect", "--ckpt-path", "checkpoints/infini-dmo"], "did you mean checkpoints/infini-demo?"),
        (["launch", "-n", "2", "passkye"], "did you mean passkey?"),
        (["launch", "-n", "2", "passkey", "--ckpt-pth", "x"], "infini-eval passkey: unknown flag --ckpt-pth; did you"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_typos(argv, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert message in ended(argv, capsys)


@pytest.mark.parametrize(
    ("flag", "value", "near"),
    [("--task", "paskey", "passkey"), ("--backend", "opnai", "openai"), ("--scorer", "contain", "contains")],
)
def test_misspelt_names(flag, value, near, capsys):
    given = {"--task": "passkey", "--backend": "fake", "--model": "any", "--save_path": "s", "--eval_dataset_path": "d"}
    given[flag] = value
    message = ended(["run", *(word for pair in given.items() for word in pair)], capsys)
    assert message.startswith("error: unknown ") and message.endswith(f"; did you mean {near}?\n")
    assert message.count("\n") == 1


def test_a_wrong_choice_and_words_that_are_no_typos(capsys):
    parser = make_parser("tool")
    add_flag(parser, "--memory", choices=("on", "ablate"))
    add_flag(parser, "--shift", type=int)
    add_flag(parser, "--note")
    parser.add_argument("-v", action="store_true")
    args = parser.parse_args(["-v", "--shift", "-3", "--note", "-- x", "--memory=on"])
    assert (args.shift, args.note, args.memory) == (-3, "-- x", "on")
    for given, said in ((["--memory", "abalte"], "did you mean ablate?"), (["--memory", "q"], "(valid: on, ablate)")):
        with pytest.raises(SystemExit):
            parser.parse_args(given)
        assert said in capsys.readouterr().err


def test_help_is_grouped_and_help_of_a_command_is_its_own(capsys):
    assert main(["help"]) == 0
    usage = capsys.readouterr().out
    assert all(f"{group}:\n" in usage for group in GROUPS)
    assert all(f"  {name}" in usage for name in COMMANDS)
    with pytest.raises(SystemExit) as left:
        main(["help", "plan"])
    assert left.value.code == 0
    assert "usage: infini-eval plan" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name):
    assert EXAMPLE.search(load_command(name).description), f"no example in the help of {name}"


def test_messages_and_help_name_commands_that_exist():
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.sh"), *(ROOT / "examples").rglob("*.sh")]
    text = "\n".join(path.read_text() for path in sources)
    named = set(re.findall(r"infini-eval ([a-z][a-z-]+)\b(?! has| help)", text)) - {"help"}
    assert named <= set(COMMANDS), named - set(COMMANDS)
    assert "huggingface-cli" not in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_flags_and_choices(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("passkey", "ckpt-path", "ablate", "long-context"))
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_completion_without_its_package(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert "pip install shtab" in ended(["completion", "bash"], capsys)


@pytest.mark.parametrize(
    ("argv", "started"),
    [
        (
            ["-n", "4", "passkey", *"--ckpt-path C --save_path S --eval_dataset_path D --dp 4".split()],
            ["-m", "infini_eval", "passkey"],
        ),
        (
            ["-n", "4", "examples/infinite-context-length/run_evals.py", "--tp", "4"],
            ["examples/infinite-context-length/run_evals.py", "--tp"],
        ),
    ],
    ids=["command", "script"],
)
def test_what_a_launch_starts(argv, started, monkeypatch):
    monkeypatch.chdir(ROOT)
    seen = []
    monkeypatch.setattr(torchrun, "run_torchrun", lambda words: seen.extend(words) or 0)
    assert main(["launch", *argv]) == 0
    assert seen[:3] == ["--nproc_per_node=4", "--max_restarts=0", "--standalone"]
    assert seen[3 : 3 + len(started)] == started
    assert seen[-2:] == argv[-2:]


def test_several_nodes_need_a_meeting_place(capsys):
    assert "--rdzv-endpoint" in ended(["launch", "--nnodes", "2", "passkey"], capsys)
    args = command_parser("launch").parse_args(["-n", "8", "--nnodes", "2", "--rdzv-endpoint", "a:1", "run"])
    assert "--rdzv_endpoint=a:1" in launch._launcher_flags(args)
