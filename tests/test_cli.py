"""The command line without a framework: options, plans, errors, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fitstream
from fitstream.cli import main

MakePictures = Callable[..., Path]


@pytest.fixture(autouse=True)
def keep_the_handler_of_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fitstream.cli.watch_for_interrupts", lambda: None)


def run(*arguments: str | Path) -> int:
    """Run the command line in this process; the exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"fitstream, version {fitstream.__version__}\n"


@pytest.mark.parametrize("command", ["demo", "train", "plan"])
def test_help_shows_the_options_with_their_defaults(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    out = capsys.readouterr().out
    assert "--memory" in out
    assert "[default: " in out


def test_plan_prints_the_plan_of_a_folder(
    tmp_path: Path, make_pictures: MakePictures, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_pictures(tmp_path / "photos")
    code = run("plan", folder, "--memory", "4MB", "--image-size", "16x24", "--batch-size", "5", "--workers", "2")
    out = capsys.readouterr().out
    assert code == 0
    assert "24 samples a pass in 5 batches" in out
    assert "uint8(16, 24, 3)" in out
    assert "of 4 MB" in out


def test_plan_reads_tables_by_their_column_names(
    tmp_path: Path, make_pictures: MakePictures, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path / "photos", count=2)
    table = tmp_path / "list.csv"
    table.write_text("file,kind\ncats/000.png,a\ndogs/001.jpg,b\n")
    code = run("plan", table, "--image", "file", "--label", "kind", "--root", tmp_path / "photos", "--memory", "8 MB")
    assert code == 0
    assert "2 samples a pass in 1 batches" in capsys.readouterr().out


def test_a_folder_in_parts_is_read_as_its_parts(
    tmp_path: Path, make_pictures: MakePictures, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path / "photos" / "train", count=5)
    make_pictures(tmp_path / "photos" / "val", count=1)
    assert run("plan", tmp_path / "photos", "--memory", "8MB") == 0
    out = capsys.readouterr().out
    assert f"Training on {tmp_path / 'photos' / 'train'}, validating on {tmp_path / 'photos' / 'val'}" in out
    assert "10 samples a pass" in out


def test_a_class_named_train_beside_others_is_a_class(
    tmp_path: Path, make_pictures: MakePictures, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path / "photos", classes=("train", "tram"))
    assert run("plan", tmp_path / "photos", "--memory", "8MB") == 0
    assert "24 samples a pass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["photos", "--memory", "3 bushels"], "'3 bushels' is not a size"),
        (["photos", "--memory", "1kB"], "memory="),
        (["photos", "--image-size", "0"], "image_size="),
    ],
)
def test_errors_are_one_message_and_exit_code_1(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    make_pictures: MakePictures,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_pictures(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert run("plan", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: ")
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan"],
        ["plan", "photos", "--image-size", "wide"],
        ["plan", "photos", "--image-size", "12x"],
        ["plan", "photos", "--workers", "-1"],
        ["train", "photos", "--validation-split", "1"],
        ["train", "photos", "--epochs", "0"],
        ["train", "photos", "--model", "gone.py:make"],
        ["train", "photos", "--model", "gone.txt:make"],
        ["train", "photos", "--model", "gone.py:"],
        ["walk"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_points_to_help(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert "for help." in capsys.readouterr().err


def test_a_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FITSTREAM_TRACEBACK", "1")
    with pytest.raises(fitstream.PlanError, match="no such file"):
        main(["plan", "nowhere"])


def test_errors_of_others_keep_their_traceback(
    tmp_path: Path, make_pictures: MakePictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fitstream.cli_options.list_folder", broken)
    with pytest.raises(ZeroDivisionError):
        main(["plan", str(make_pictures(tmp_path / "photos"))])


def test_without_keras_train_says_what_to_install(
    tmp_path: Path, make_pictures: MakePictures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_pictures(tmp_path / "photos")
    monkeypatch.setattr("fitstream.backend._installed", lambda name: False)
    assert run("train", folder, "--output", tmp_path / "out") == 1
    assert 'pip install "fitstream[demo]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


WAITING = r"""
import sys, threading
import fitstream.cli

def wait(*arguments, **options):
    print("ready", flush=True)
    if sys.argv[1] == "swallowed":
        class Swallows:
            def __del__(self):
                threading.Event().wait(60)
        Swallows()
        print("went on", flush=True)
    elif sys.argv[1] == "stubborn":
        while True:
            try:
                threading.Event().wait(60)
            except KeyboardInterrupt:
                pass
    threading.Event().wait(60)

fitstream.cli_options.list_folder = wait
fitstream.cli.main(["plan", "."])
"""


@pytest.mark.parametrize("how", ["plain", "swallowed", "stubborn"])
def test_ctrl_c_ends_with_one_line_and_exit_code_130(how: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, how],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.split("\n") in (["Interrupted.", ""], ["", "Interrupted.", ""])
    assert out == ""
