"""Whole runs: stopped and resumed, killed, in two processes, on broken files and full disks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

from gclib.training import checkpoint, trainer
from gclib.training.checkpoint import CheckpointError, Checkpoints
from gclib.training.locks import lock
from gclib.training.progress import duration, read_log
from gclib.training.trainer import TrainingError

SCRIPT = Path(tiny.__file__)
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    tiny.run(data, out)
    return out


def assert_same(first, second):
    one, two = tiny.final(first), tiny.final(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_learns_and_says_what_it_was(whole):
    summary = json.loads((whole / "summary.json").read_text("utf-8"))
    assert summary["figures"]["top1"] > 50  # a third by chance
    assert summary["figures"]["images"] == 12
    assert [e["epoch"] for e in summary["evaluations"]] == [1, 2, 3]
    assert summary["best"]["top1"] == max(e["top1"] for e in summary["evaluations"])
    assert summary["updates"] == 18
    assert summary["recipe"]["lr"] == 0.05
    assert summary["as_in_paper"] is False
    assert summary["about"] == {"stride_in": "1x1", "started_from": None, "classes": 3}
    log = read_log(whole / "log.jsonl")
    steps = [line["step"] for line in log if line["event"] == "train"]
    assert steps == list(range(1, 19))
    assert all(0 <= line["waiting"] <= 1 for line in log if line["event"] == "train")
    losses = [line["loss"] for line in log if line["event"] == "train"]
    assert sum(losses[-6:]) < sum(losses[:6])


@pytest.mark.parametrize("stops", [(4,), (6,), (1, 7, 5)], ids=str)
def test_a_resumed_run_gives_the_same_bits(data, whole, tmp_path, stops):
    """With augmentation, BatchNorm, dropout, two workers and accumulated parts."""
    lines = []
    for number, stop in enumerate(stops):
        ended = tiny.run(data, tmp_path, resume=number > 0, stop_after=stop)
        assert (ended.stopped, ended.summary) == (0, None)
    # The number of workers changes nothing either.
    tiny.run(data, tmp_path, resume=True, workers=0, say=lines.append)
    assert f"going on from {tmp_path}/checkpoint-{sum(stops):08d}.pt" in lines[0]
    assert_same(tmp_path, whole)
    for name in ("log.jsonl", "summary.json"):
        assert (tmp_path / name).is_file()
    events = [(line["step"], line["event"]) for line in read_log(tmp_path / "log.jsonl")]
    assert sorted(events) == sorted(
        (line["step"], line["event"]) for line in read_log(whole / "log.jsonl")
    )


def test_adamw_goes_on_with_the_same_bits(data, whole, tmp_path):
    values = {"optimizer": "adamw", "lr": 0.002}
    tiny.run(data, tmp_path / "one", values=values)
    tiny.run(data, tmp_path / "two", values=values, stop_after=7)
    tiny.run(data, tmp_path / "two", values=values, resume=True)
    assert_same(tmp_path / "one", tmp_path / "two")
    state = torch.load(Checkpoints(tmp_path / "two").paths()[-1], weights_only=True)
    assert "exp_avg_sq" in state["optimizer"]["state"][0]
    with pytest.raises(CheckpointError, match="optimizer"):
        tiny.run(data, tmp_path / "two", values={"lr": 0.002}, resume=True)


def test_other_seeds_and_a_forgotten_generator_give_other_bits(data, whole, tmp_path):
    """The proof that the comparison above can fail."""
    tiny.run(data, tmp_path / "seed", values={"seed": 1})
    tiny.run(data, tmp_path / "states", stop_after=4)
    path = Checkpoints(tmp_path / "states").paths()[-1]
    state = checkpoint.read(path)
    state["generators"][0]["cpu"] = torch.Generator().manual_seed(3).get_state()
    checkpoint.write(path, state)
    tiny.run(data, tmp_path / "states", resume=True)
    for name in ("seed", "states"):
        with pytest.raises(AssertionError):
            assert_same(tmp_path / name, whole)


@POSIX
@pytest.mark.full
@pytest.mark.parametrize("seed", [1])
def test_a_run_that_is_killed_at_random_moments(data, tmp_path, seed):
    arguments = ["killed", str(data), str(tmp_path / "run"), "20", str(seed)]
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=ONE_THREAD, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) == 20
    tiny.run(data, tmp_path / "whole", values={"epochs": tiny.LONG})
    assert_same(tmp_path / "run", tmp_path / "whole")


@POSIX
@pytest.mark.full
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_and_leaves(data, tmp_path, name):
    number = getattr(signal, name)
    command = [sys.executable, str(SCRIPT), "train", str(data), str(tmp_path)]
    process = subprocess.Popen(
        [*command, "epochs=2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ONE_THREAD,
        start_new_session=True,
        # As from a terminal: a test run in the background inherits ignored signals.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    for line in process.stdout:
        if "epoch 3:" in line:
            break
    os.killpg(process.pid, number)  # as a terminal does: its workers get it, too
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "go on with --resume auto" in out
    assert errors == "Saving after this update; Ctrl-C once more ends at once.\n"
    step = int(out.split("saved at update ")[1].split()[0])
    assert Checkpoints(tmp_path).paths()[-1].name == f"checkpoint-{step:08d}.pt"


def processes(data, out, count, *values):
    """The same run in ``count`` processes, as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    started = []
    for rank in range(count):
        world = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, str(SCRIPT), "train", str(data), str(out), *values]
        started.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=ONE_THREAD | world,
            )
        )
    return [(p.communicate(timeout=200), p.returncode) for p in started]


@pytest.mark.full
def test_two_processes_are_one_that_accumulates(data, tmp_path):
    """With frozen norms: running statistics are those of process 0 otherwise."""
    values = ("norm=frozen", "workers=1")
    (((out, errors), status), *others) = processes(data, tmp_path / "two", 2, *values)
    assert [status, *(code for _, code in others)] == [0, 0], errors
    assert "2 processes × 4 examples" in out
    assert others[0][0][0] == ""  # process 1 is silent
    ((alone, status),) = processes(data, tmp_path / "one", 1, *values)
    assert status == 0, alone[1]
    assert "2 parts × 4 examples" in alone[0]
    first, second = tiny.final(tmp_path / "one"), tiny.final(tmp_path / "two")
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-6)
    figures = [
        json.loads((tmp_path / n / "summary.json").read_text("utf-8"))["figures"]
        for n in ("one", "two")
    ]
    assert figures[0] == figures[1]


@pytest.mark.full
def test_two_processes_go_on_as_one_and_stop_together(data, tmp_path):
    (((_, errors), status), *_) = processes(data, tmp_path, 2, "stop_after=4", "workers=1")
    assert status == 0, errors
    lines = []
    tiny.run(data, tmp_path, resume=True, say=lines.append)
    assert "the checkpoint is of 2 processes, here are 1" in lines[1]
    assert (tmp_path / "summary.json").is_file()


def test_a_folder_that_holds_a_run_is_kept(data, whole):
    before = (whole / "summary.json").read_bytes()
    with pytest.raises(TrainingError, match="holds a run already: --resume auto goes on"):
        tiny.run(data, whole)
    with pytest.raises(CheckpointError, match=r"another recipe \(seed: 0 and 7"):
        tiny.run(data, whole, resume=True, values={"seed": 7})
    assert (whole / "summary.json").read_bytes() == before


def test_a_finished_run_stays_as_it_is(data, whole):
    before = {path: path.read_bytes() for path in whole.glob("*.*")}
    lines = []
    ended = tiny.run(data, whole, resume=True, say=lines.append)
    assert lines == [f"finished already: {whole}/summary.json"]
    assert ended.summary["updates"] == 18
    assert {path: path.read_bytes() for path in whole.glob("*.*")} == before


def test_other_data_is_refused(data, tmp_path):
    tiny.run(data, tmp_path / "run", stop_after=1)
    other = tmp_path / "other"
    tiny.make_images(other, classes=3, per_class=20, size=(24, 20))
    with pytest.raises(TrainingError, match="made with 48 examples, the data has 60"):
        tiny.run(other, tmp_path / "run", resume=True)


def broken_copy(data, folder, count):
    import shutil

    shutil.copytree(data, folder)
    paths = sorted(folder.glob("train/*/*.jpg"))[:count]
    for path in paths:
        path.write_bytes(path.read_bytes()[:200])
    return paths


def test_broken_files_are_counted_and_the_run_goes_on(data, tmp_path):
    paths = broken_copy(data, tmp_path / "data", 2)
    lines = []
    ended = tiny.run(tmp_path / "data", tmp_path / "run", say=lines.append)
    assert ended.summary["broken"] == 2
    named = (tmp_path / "run/broken.txt").read_text("utf-8").splitlines()
    assert sorted(named) == sorted(map(str, paths))
    said = [line for line in lines if "cannot be read, another one takes its place" in line]
    assert len(said) == 2


def test_too_many_broken_files_stop_the_run(data, tmp_path):
    broken_copy(data, tmp_path / "data", 5)
    with pytest.raises(TrainingError, match=r"more than --max-broken 3; they are named"):
        tiny.run(tmp_path / "data", tmp_path / "run", max_broken=3)


def test_a_full_disk_costs_a_checkpoint_and_the_last_one_is_an_error(data, tmp_path, monkeypatch):
    real, fails = checkpoint.write, [False, True, True, False, False]

    def write(path, value):
        if path.name.startswith("checkpoint-") and fails and fails.pop(0):
            raise CheckpointError(f"{path} was not written: the disk is full")
        real(path, value)

    monkeypatch.setattr(checkpoint, "write", write)
    lines = []
    tiny.run(data, tmp_path / "a", say=lines.append, checkpoint_steps=4)
    assert sum("the one before is still there" in line for line in lines) == 2
    assert (tmp_path / "a/summary.json").is_file()
    fails[:] = [False, True]
    with pytest.raises(CheckpointError, match="the disk is full"):
        tiny.run(data, tmp_path / "b", stop_after=6 + 1, checkpoint_steps=100)


def test_a_loss_that_is_no_number_stops_and_spoils_no_checkpoint(data, tmp_path):
    with pytest.raises(FloatingPointError, match=r"loss of update \d+.* lower the learning rate"):
        tiny.run(data, tmp_path, values={"lr": 1e30, "warmup_epochs": 0.0}, checkpoint_steps=1)
    for path in Checkpoints(tmp_path).paths():
        assert all(v.isfinite().all() for v in checkpoint.read(path)["model"].values())


def test_torchs_switches_and_generators_are_put_back(data, tmp_path):
    torch.manual_seed(0)
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    tiny.run(data, tmp_path, stop_after=1)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert signal.getsignal(signal.SIGINT) is handler


def test_evaluation_draws_nothing(data, whole, tmp_path):
    tiny.run(data, tmp_path, evaluate_every=3)
    assert_same(tmp_path, whole)
    assert len(json.loads((tmp_path / "summary.json").read_text("utf-8"))["evaluations"]) == 1


def test_an_error_without_a_sentence_ends_the_process(data, tmp_path):
    """The processes that read data ignore SIGTERM, and Python waits for them at its end."""
    code = f"""
import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})
import tiny
tiny.Tiny.loss = lambda self, model, batch: model.no_such_thing
tiny.run({str(data)!r}, {str(tmp_path / "run")!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=ONE_THREAD,
        check=False,
    )
    assert done.returncode == 1
    assert "no_such_thing" in done.stderr


def test_without_git_a_run_finishes(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = tiny.run(data, tmp_path / "run", values={"epochs": 1})
    assert ended.summary["commit"] == "unknown"


def test_a_damaged_checkpoint_costs_no_good_one(data, whole, tmp_path):
    tiny.run(data, tmp_path, stop_after=6, checkpoint_steps=3, keep=2)
    newest = Checkpoints(tmp_path).paths()[-1]
    newest.write_bytes(b"x")
    lines = []
    tiny.run(data, tmp_path, resume=True, stop_after=1, keep=1, say=lines.append)
    assert "is damaged" in lines[0]
    assert [p.name for p in Checkpoints(tmp_path).paths()] == ["checkpoint-00000004.pt"]
    assert newest.with_suffix(".damaged").exists()
    tiny.run(data, tmp_path, resume=True)
    assert_same(tmp_path, whole)


def test_weights_that_are_no_numbers_are_not_saved(data, tmp_path, monkeypatch):
    """A finite loss with a gradient that is none, in the last update of all."""
    loss_of, seen = tiny.Tiny.loss, []

    def loss(self, model, batch):
        seen.append(batch)
        weight = next(model.parameters())
        nothing = (weight - weight.detach()).sum().sqrt() if len(seen) == 12 else 0
        return loss_of.fget(self)(model, batch) + nothing

    monkeypatch.setattr(tiny.Tiny, "loss", loss)
    with pytest.raises(FloatingPointError, match="weights after update 5 are no numbers"):
        tiny.run(data, tmp_path, values={"epochs": 1}, checkpoint_steps=5)
    assert [p.name for p in Checkpoints(tmp_path).paths()] == ["checkpoint-00000005.pt"]
    assert not (tmp_path / "model.pt").exists()


def test_broken_test_images_are_named_and_limited(data, tmp_path):
    import shutil

    shutil.copytree(data, tmp_path / "data")
    paths = sorted((tmp_path / "data/val").glob("*/*.jpg"))
    for path in paths[:3]:
        path.write_bytes(b"x")
    ended = tiny.run(tmp_path / "data", tmp_path / "a", values={"epochs": 1})
    assert ended.summary["figures"]["images"] == len(paths) - 3
    assert len((tmp_path / "a/broken.txt").read_text().splitlines()) == 3
    with pytest.raises(TrainingError, match="3 files cannot be read, more than --max-broken 2"):
        tiny.run(tmp_path / "data", tmp_path / "b", values={"epochs": 1}, max_broken=2)
    assert not (tmp_path / "b/best.pt").exists()


def test_broken_files_may_be_mended_before_going_on(data, whole, tmp_path):
    import shutil

    paths = broken_copy(data, tmp_path / "data", 5)
    with pytest.raises(TrainingError, match="Mend them or allow more, and go on"):
        tiny.run(tmp_path / "data", tmp_path / "run", max_broken=3)
    assert Checkpoints(tmp_path / "run").paths()  # nothing of the work is lost
    for path in paths:
        shutil.copy(data / path.relative_to(tmp_path / "data"), path)
    ended = tiny.run(tmp_path / "data", tmp_path / "run", resume=True)
    assert ended.summary["broken"] > 3


def test_the_best_is_the_one_that_was_written(data, tmp_path, monkeypatch):
    real, fails = Checkpoints.save_best, [False, True, True, True]

    def save_best(self, state):
        if fails.pop(0):
            raise CheckpointError("the disk is full")
        real(self, state)

    monkeypatch.setattr(Checkpoints, "save_best", save_best)
    ended = tiny.run(data, tmp_path)
    assert ended.summary["best"]["epoch"] == 1
    assert checkpoint.read(tmp_path / "best.pt")["result"] == ended.summary["best"]


def test_where_the_weights_came_from_stays(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny.Tiny, "about", lambda self: {"started_from": "first"})
    tiny.run(data, tmp_path, stop_after=2)
    monkeypatch.setattr(tiny.Tiny, "about", lambda self: {"started_from": "second"})
    assert tiny.run(data, tmp_path, resume=True).summary["about"] == {"started_from": "first"}


def test_other_classes_are_refused(data, tmp_path):
    tiny.run(data, tmp_path / "run", stop_after=1)
    tiny.make_images(tmp_path / "data", classes=4, per_class=12, size=(24, 20))
    with pytest.raises(TrainingError, match=r"of other data \(classes: 3 and 4\)"):
        tiny.run(tmp_path / "data", tmp_path / "run", resume=True)


def test_weights_in_the_place_of_a_checkpoint(data, whole, tmp_path):
    import shutil

    shutil.copy(whole / "best.pt", tmp_path / "checkpoint-00000006.pt")
    with pytest.raises(CheckpointError, match="does not fit this network"):
        tiny.run(data, tmp_path, resume=True)


def test_a_name_that_is_no_text(data, tmp_path):
    (path, *_) = broken_copy(data, tmp_path / "data", 1)
    try:
        path.rename(os.fsdecode(os.fsencode(path.parent) + b"/000\xff.jpg"))
    except OSError:
        pytest.skip("this disk takes no such name")
    lines = []
    ended = tiny.run(tmp_path / "data", tmp_path / "run", values={"epochs": 1}, say=lines.append)
    assert ended.summary["broken"] == 1
    assert b"000\xff.jpg" in (tmp_path / "run/broken.txt").read_bytes()
    assert any("000\N{REPLACEMENT CHARACTER}.jpg" in line for line in lines)


def test_one_run_at_a_time_in_a_folder(data, tmp_path):
    pytest.importorskip("fcntl", reason="locks of POSIX")
    busy = ValueError("not mine")
    with lock(tmp_path, busy), pytest.raises(TrainingError, match="another run is at work"):
        tiny.run(data, tmp_path)


def test_files_of_others_stay(data, tmp_path):
    (tmp_path / "thesis.partial").write_text("mine")
    tiny.run(data, tmp_path, stop_after=1)
    assert (tmp_path / "thesis.partial").read_text() == "mine"


def test_a_terminal_that_is_gone_costs_lines_alone(data, tmp_path):
    def say(line):
        raise BrokenPipeError

    assert tiny.run(data, tmp_path, values={"epochs": 1}, say=say).summary["updates"] == 6


def test_a_damaged_summary_is_written_again(data, tmp_path):
    tiny.run(data, tmp_path, values={"epochs": 1})
    for text in ("[]", "{"):
        (tmp_path / "summary.json").write_text(text)
        assert tiny.run(data, tmp_path, values={"epochs": 1}, resume=True).summary["updates"] == 6


def test_a_warm_up_that_is_longer_than_the_run(data, tmp_path):
    values = {"warmup_epochs": 0.0, "warmup_steps": 100}
    with pytest.raises(TrainingError, match="warmup_steps=100: the run has 18 updates"):
        tiny.run(data, tmp_path, values=values)


def test_norms_in_one_process():
    from torch import nn

    from gclib.training.distributed import World

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    same, said = trainer.with_norms(model, "sync", World())
    assert same is model
    assert "norm=sync: one process, so BatchNorm takes the statistics" in said
    _, said = trainer.with_norms(model, "sync", World(size=2))
    assert "no GPU" in said
    frozen, said = trainer.with_norms(model, "frozen", World())
    assert not said
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    frozen.train()(torch.randn(2, 3, 4, 4))
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (7500, "2 h 05 min"), (360_000, "4 d 4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_half_written_line_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "event": "train"}\n{"step": 2, "ev')
    assert read_log(path) == [{"step": 1, "event": "train"}]


@pytest.fixture
def heard():
    """SIGINT is not ignored, as it is in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_is_ignored_stays_ignored(heard):
    """As nohup wants it."""
    from gclib.training.stopping import StopSignals

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signals.received == 0


def test_the_second_interrupt_ends_at_once(heard):
    from gclib.training.stopping import StopSignals

    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
