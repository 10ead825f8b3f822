"""The ``gclib`` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import functools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import gclib
from gclib.seeds import seed_range

_BENCHED = ("blocks", "networks", "roofline", "course", "grading", "training", "loaders")
_FULL = ("imagenet", "coco", "kinetics")  # full recipes; the rest of train is the lab


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="gclib", description="The GCNet course at a terminal.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"gclib {gclib.__version__}")
    commands = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        parser_class=functools.partial(argparse.ArgumentParser, allow_abbrev=False),
    )

    command = commands.add_parser("doctor", help="look at the installation, say what to mend")
    command.set_defaults(run=_doctor)

    command = commands.add_parser("lab", help="open JupyterLab at a chapter (default: 00)")
    command.add_argument("chapter", nargs="?", default="00", metavar="NN")
    command.set_defaults(run=_lab)

    command = commands.add_parser("start", help="copy chapters into work/; never overwrites")
    command.add_argument("chapter", nargs="?", metavar="NN", help="default: all chapters")
    command.add_argument(
        "--again", action="store_true", help="a fresh copy of NN; yours is kept under a new name"
    )
    command.set_defaults(run=_start)

    command = commands.add_parser("status", help="where you stand: every exercise in work/")
    command.set_defaults(run=_status)

    command = commands.add_parser("check", help="run the visible checks of a chapter")
    command.add_argument("chapter", metavar="NN")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--notebook", type=Path, metavar="P", help="default: the one in work/")
    source.add_argument("--impl", metavar="MODULE", help="a module or .py file of your own")
    command.set_defaults(run=_check)

    command = commands.add_parser("submit-check", help="can this notebook be handed in?")
    command.add_argument("path", type=Path, metavar="PATH")
    command.set_defaults(run=_submit_check)

    command = commands.add_parser("data", help="make or check a data set")
    command.add_argument("dataset", choices=["scenes", "imagenet", "coco", "kinetics"])
    place = command.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="generate it there (scenes, and small sets in the layouts of coco and kinetics)",
    )
    place.add_argument("--check", type=Path, metavar="DIR", help="is all there? what is missing?")
    command.add_argument(
        "--decode", type=int, default=200, metavar="N", help="of photographs: how many to read; 200"
    )
    command.add_argument(
        "--lists",
        type=Path,
        metavar="DIR",
        help="of videos: where lists of the readable ones go; default: the folder that is checked",
    )
    command.add_argument("--count", type=int, default=100, metavar="N", help="default: 100")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    command.set_defaults(run=_data)

    command = commands.add_parser(
        "train",
        help="train; scenes is the lab, imagenet, coco and kinetics are full recipes",
        epilog="gclib train imagenet --help shows the options of a full recipe.",
    )
    command.add_argument("dataset", choices=["scenes", "cifar10", *_FULL])
    command.add_argument(
        "--row",
        nargs="+",
        required=True,
        metavar="ID",
        help="rows, or: all; --row ? lists them",
    )
    command.add_argument(
        "--seeds", type=seed_range, default=range(1, 6), metavar="A-B", help="default: 1-5"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="where logs go; default: runs/<data set>"
    )
    command.add_argument("--data", type=Path, metavar="DIR", help="where CIFAR-10 is")
    command.add_argument("--workers", type=int, metavar="N", help="default: one for each core")
    command.add_argument("--checkpoints", action="store_true", help="keep the first seed's weights")
    command.set_defaults(run=_train)

    command = commands.add_parser("evaluate", help="evaluate a checkpoint of a full recipe")
    command.add_argument("dataset", choices=_FULL)

    command = commands.add_parser("analyse", help="what the blocks of a trained network look at")
    command.add_argument("dataset", choices=["coco", "kinetics", "folder"])

    command = commands.add_parser("ledger", help="the paper's numbers, ours beside them, verdicts")
    command.add_argument("--table", metavar="ID", help="for example 2a, or 5.1 for a section")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as a JSON list")
    form.add_argument("--markdown", action="store_true", help="as docs/LEDGER.md")
    form.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw what was measured in small (.svg, .png)"
    )
    form.add_argument("--layers", metavar="ROW", help="the network of a row, layer by layer")
    command.add_argument(
        "--convention",
        metavar="NAME",
        help="of --layers: paper, detection, mmdetection or fvcore; default: that of the table",
    )
    command.add_argument(
        "--runs", type=Path, metavar="DIR", help="read the full trainings below a folder, too"
    )
    command.add_argument(
        "--recount", action="store_true", help="count the networks again, do not read the counts"
    )
    command.set_defaults(run=_ledger)

    from gclib.grading.commands import register

    register(commands)

    command = commands.add_parser("bench", help="measure blocks, networks, the machine, the course")
    command.add_argument("what", choices=[*_BENCHED])
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    command.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], help="default: both")
    command.add_argument("--block", nargs="+", metavar="NAME", help="default: all; ? lists them")
    command.add_argument(
        "--row", nargs="+", metavar="ID", help="of networks, roofline: of table 4, as 4a/gc_all"
    )
    command.add_argument(
        "--table", choices=["4", "4a", "4b"], help="of networks, roofline: all of its rows"
    )
    command.add_argument(
        "--part", nargs="+", choices=["commands", "notebooks", "tests"], help="of course; all"
    )
    command.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    command.add_argument(
        "--shape", nargs="+", type=_shape, metavar="NxCxHxW", help="of blocks; default: the page's"
    )
    command.add_argument(
        "--examples", type=int, metavar="N", help="of networks; default: 4, on a GPU 64"
    )
    command.add_argument(
        "--count", type=int, default=40, metavar="N", help="of grading: submissions; default: 40"
    )
    command.add_argument(
        "--reference", type=Path, metavar="P", help="of training: torchvision's train.py"
    )
    command.add_argument("--batch", type=int, default=16, help="of training: images; default: 16")
    command.add_argument(
        "--updates", type=int, default=12, metavar="N", help="of training: of a run; default: 12"
    )
    command.add_argument(
        "--read-by", type=int, default=2, metavar="N", help="of training: processes; default: 2"
    )
    command.add_argument(
        "--network", default="resnet50", metavar="NAME", help="of training; default: resnet50"
    )
    command.add_argument(
        "--videos", type=Path, metavar="DIR", help="of loaders: files; default: generated ones"
    )
    command.add_argument("--threads", type=int, metavar="N", help="of torch; default: all")
    command.add_argument("--quick", action="store_true", help="one small shape, to try the command")
    command.add_argument("--compiled", action="store_true", help="torch.compile as well")
    command.add_argument(
        "--graph", action="store_true", help="as CUDA graphs as well: without launches"
    )
    command.add_argument(
        "--tuned", action="store_true", help="let the C library keep large blocks (Linux)"
    )
    command.add_argument("--json", action="store_true", help="print the records")
    command.add_argument(
        "--save", type=Path, metavar="DIR", help="write DIR/PERFORMANCE.md and what belongs to it"
    )
    command.set_defaults(run=_bench)
    return parser


def _shape(text: str) -> tuple[int, ...]:
    """``"8x256x56x56"``; the channels must allow the ratio of 16."""
    sizes = text.split("x")
    if len(sizes) != 4 or not all(size.isdigit() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: expected N, C, H, W like 8x256x56x56")
    if int(sizes[1]) % 16:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a multiple of 16 channels")
    return tuple(map(int, sizes))


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["analyse"]:
        from gclib.training import analyse

        return analyse.main(arguments[1:])
    if arguments[:1] in (["train"], ["evaluate"]) and set(arguments[1:2]) & set(_FULL):
        from gclib.training import command  # its options are the fields of a recipe

        run = command.main if arguments[0] == "train" else command.evaluate
        return run(arguments[1:])
    parser = build_parser()
    _suggest(parser, arguments)
    first = arguments[1] if len(arguments) > 1 else ""
    if arguments[:1] == ["lab"] and first.startswith("-") and first not in ("-h", "--help"):
        arguments = ["lab", "00", *arguments[1:]]  # else the 8899 of --port 8899 is a chapter
    options, unknown = parser.parse_known_args(arguments)
    options.arguments = arguments
    if unknown and options.command != "lab":
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.rest = unknown
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # "·" on a terminal that has none
            stream.reconfigure(errors="replace")
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # gclib status | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush
        return 141
    except Exception as error:
        if (reason := _left_out(options.command, error)) is None:
            raise
        return _fail(reason)


def _left_out(command: str, error: Exception) -> str | None:
    """Why a command cannot run in a class's copy of the course, or None for another error."""
    from gclib.later import NotReleased, bundled

    if isinstance(error, NotReleased):
        return str(error)
    if isinstance(error, ImportError) and (error.name or "").startswith("gclib.") and bundled():
        return f"the command {command} is not in your copy of the course"
    return None


def _suggest(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """Name the nearest subcommand when there is none of that name."""
    import difflib

    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    names = list(actions[0].choices)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        near = difflib.get_close_matches(arguments[0], names, n=1)
        hint = f"; did you mean 'gclib {near[0]}'?" if near else ""
        parser.error(f"there is no command {arguments[0]!r}{hint}")


def _fail(message: object) -> int:
    print(f"gclib: {message}", file=sys.stderr)
    return 2


def _doctor(options: argparse.Namespace) -> int:
    from gclib.doctor import main as doctor

    return doctor()


def _lab(options: argparse.Namespace) -> int:
    from gclib.chapters import find_chapter
    from gclib.lab import open_lab
    from gclib.workspace import WorkspaceError

    try:
        return open_lab(find_chapter(options.chapter), options.rest)
    except (ValueError, WorkspaceError) as error:
        return _fail(error)


def _start(options: argparse.Namespace) -> int:
    from gclib.chapters import CHAPTERS, find_chapter
    from gclib.workspace import WorkspaceError, start

    if options.again and not options.chapter:
        return _fail("--again needs a chapter, for example: gclib start 01 --again")
    try:
        chapters = (find_chapter(options.chapter),) if options.chapter else CHAPTERS
        for done in start(chapters, again=options.again):
            text = {
                "new": "copied",
                "kept": "kept as it is (a fresh copy: gclib start NN --again)",
                "again": "copied again",
            }[done.what]
            print(f"work/{done.chapter.notebook}: {text}")
            if done.backup:
                print(f"  your answers are in work/{done.chapter.folder}/{done.backup.name}")
    except (ValueError, WorkspaceError) as error:
        return _fail(error)
    return 0


def _status(options: argparse.Namespace) -> int:
    from gclib.chapters import CHAPTERS
    from gclib.checks.work import UnreadableWork, check_work, load_notebook
    from gclib.workspace import WorkspaceError, work_folder

    try:
        work = work_folder()
    except WorkspaceError as error:
        return _fail(error)
    print("Running the code of work/ on this computer, without a sandbox: your own only.")
    total = worth = 0
    for chapter in CHAPTERS:
        path = work / chapter.notebook
        print(f"{chapter.number} {chapter.title}")
        if not path.is_file():
            print(f"   not started: gclib start {chapter.number}")
            continue
        try:
            outcomes = list(check_work(load_notebook(path), chapter.checks()))
        except UnreadableWork as error:
            print(f"   {error}")
            continue
        for outcome in outcomes:
            _print_outcome(outcome)
            points = outcome.exercise.points[0]
            worth += points
            total += points if outcome.verdict == "passed" else 0
    print(f"visible checks: {total} of {worth} points; hidden checks and reflections come on top")
    return 0


def _check(options: argparse.Namespace) -> int:
    from gclib.chapters import find_chapter
    from gclib.workspace import WorkspaceError, work_folder

    try:
        chapter = find_chapter(options.chapter)
    except ValueError as error:
        return _fail(error)
    from gclib.checks.work import UnreadableWork, check_work, load_module, load_notebook

    try:
        if options.impl:
            work = load_module(options.impl)
        else:
            path = options.notebook or work_folder() / chapter.notebook
            if not path.is_file() and options.notebook is None:
                return _fail(
                    f"work/{chapter.notebook} is not there; run: gclib start {chapter.number}"
                )
            work = load_notebook(path)
    except (WorkspaceError, UnreadableWork) as error:
        return _fail(error)
    print(f"Running the code of {work.origin} on this computer, without a sandbox: your own only.")
    counts = {"passed": 0, "failed": 0, "not attempted": 0}
    for outcome in check_work(work, chapter.checks()):
        counts[outcome.verdict] += 1
        _print_outcome(outcome)
        if outcome.verdict == "failed":
            print("\n".join(f"      {line}" for line in outcome.message.split("\n")))
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    return 1 if counts["failed"] else 0


def _print_outcome(outcome) -> None:
    mark = {"passed": "ok ", "failed": "no ", "not attempted": "-  "}[outcome.verdict]
    exercise = outcome.exercise
    print(f"   {mark} {exercise.id}  {exercise.title:<46} {outcome.verdict}")


def _submit_check(options: argparse.Namespace) -> int:
    from gclib.grading.submission import report

    good, text = report(options.path)
    print(text, file=sys.stdout if good else sys.stderr)
    return 0 if good else 1


def _data(options: argparse.Namespace) -> int:
    from gclib.datasets import BrokenData, check_scenes, write_scenes

    if options.dataset in ("imagenet", "coco"):
        return _data_photographs(options)
    if options.dataset == "kinetics":
        return _data_videos(options)
    try:
        if options.out:
            write_scenes(options.out, count=options.count, seed=options.seed)
        print("\n".join(check_scenes(options.out or options.check)))
    except (BrokenData, ValueError, OSError) as error:
        return _fail(error)
    return 0


def _data_photographs(options: argparse.Namespace) -> int:
    if options.out and options.dataset == "coco":
        return _generate_coco(options.out, options.seed)
    if options.out:
        return _fail("imagenet is not made here: gclib data imagenet --check DIR")
    if options.decode < 0:
        return _fail(f"--decode {options.decode}: expected 0 or more")
    if options.dataset == "coco":
        from gclib.datasets.coco_check import check_coco as check
    else:
        from gclib.datasets.imagenet import check_imagenet as check
    report = check(options.check, decode=options.decode)
    print(report)
    return 1 if report.problems else 0


def _data_videos(options: argparse.Namespace) -> int:
    if options.out:
        return _generate_kinetics(options.out, options.seed)
    from gclib.datasets import BrokenData
    from gclib.datasets.kinetics_check import check_kinetics

    try:
        report = check_kinetics(options.check, lists=options.lists)
    except BrokenData as error:  # PyAV is not installed
        return _fail(error)
    print(report)
    return 1 if report.problems else 0


def _generate_coco(folder: Path, seed: int) -> int:
    from gclib.datasets import BrokenData
    from gclib.datasets.detection_scenes import IMAGES, write_detection_scenes

    try:
        digests = write_detection_scenes(folder, seed=seed)
    except (BrokenData, OSError) as error:
        return _fail(error)
    for part, digest in digests.items():
        print(f"ok  {part}: {IMAGES[part]} generated images, {digest[:12]}")
    return 0


def _generate_kinetics(folder: Path, seed: int) -> int:
    from gclib.datasets import BrokenData
    from gclib.datasets.clip_scenes import VIDEOS, write_clip_scenes

    try:
        digests = write_clip_scenes(folder, seed=seed)
    except (BrokenData, OSError) as error:
        return _fail(error)
    for part, digest in digests.items():
        print(f"ok  {part}: {VIDEOS[part]} generated videos, {digest[:12]}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from gclib.datasets import BrokenData
    from gclib.training import cifar10, scenes

    rows = scenes.LAB_ROWS if options.dataset == "scenes" else cifar10.CIFAR10_ROWS
    if options.row == ["?"]:
        print("\n".join(rows))
        return 0
    if options.workers is not None and options.workers < 1:
        return _fail(f"--workers {options.workers}: expected at least 1")
    chosen = list(rows) if options.row == ["all"] else options.row
    folder = options.out or Path("runs", options.dataset)
    checkpoints = folder / "checkpoints" if options.checkpoints else None
    how = {"workers": options.workers, "checkpoints": checkpoints}
    try:
        if options.dataset == "scenes":
            scenes.run_many(chosen, options.seeds, folder, **how)
        elif options.data is None:
            return _fail("--data DIR is missing: the folder that holds CIFAR-10")
        else:
            cifar10.run_many(chosen, options.seeds, folder, data=options.data, **how)
    except (BrokenData, ValueError, OSError) as error:
        return _fail(error)
    print(f"The logs are in {folder}.")
    return 0


def _ledger(options: argparse.Namespace) -> int:
    from gclib.paper.ledger import as_json, as_markdown, as_text, ledger, read_summaries

    if options.layers:
        return _layers(options)
    if options.convention:
        return _fail("--convention: only with --layers, for example: gclib ledger --layers 4a/nl_1")
    counts = None
    if options.recount:
        from gclib.models.counts import recount

        counts = recount(options.table)
    trained = []
    if options.runs:
        trained = read_summaries(options.runs)
        if not trained:
            return _fail(f"--runs {options.runs}: no summary.json of a finished training is there")
    entries = ledger(counts=counts, trained=trained)
    if options.table:
        known = dict.fromkeys(entry.table for entry in entries)
        wanted = {options.table, f"section {options.table}"}
        entries = [entry for entry in entries if entry.table in wanted]
        if not entries:
            return _fail(f"--table {options.table}: expected one of {', '.join(known)}")
    if options.json:
        print(as_json(entries))
    elif options.markdown:
        print(as_markdown(entries), end="")
    elif options.figure:
        from gclib.paper.figure import save

        try:
            save(entries, options.figure)
        except (ValueError, OSError) as error:
            return _fail(error)
        print(f"Wrote {options.figure}.")
    else:
        print("\n".join(as_text(entries)))
    return 0


def _layers(options: argparse.Namespace) -> int:
    from gclib.analysis.networks import as_table
    from gclib.models.counts import convention_of, row_layers

    if options.table:
        return _fail("--table: not with --layers, which names the row")
    try:
        layers = row_layers(options.layers)
        print("\n".join(as_table(layers, options.convention or convention_of(options.layers))))
    except ValueError as error:
        return _fail(error)
    return 0


def _bench(options: argparse.Namespace) -> int:
    for name in ("rounds", "examples", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            return _fail(f"--{name} {value}: expected at least 1")
    rows = options.row or options.table
    if rows and options.what not in ("networks", "roofline"):
        return _fail(f"--row and --table belong to networks and roofline, not to {options.what}")
    if options.what == "loaders":
        return _bench_loaders(options)
    if options.what in ("course", "grading", "training"):
        return _bench_processes(options)
    import torch

    from gclib.bench import peers, report

    if options.block == ["?"]:
        print("\n".join(peers.PEERS))
        return 0
    if options.block and (rows or options.what == "roofline"):
        return _fail("--block: rows say which block they have; leave it out")
    if unknown := [name for name in options.block or () if name not in peers.PEERS]:
        return _fail(f"--block {unknown[0]}: expected some of {', '.join(peers.PEERS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        return _fail("--device cuda: torch finds no GPU here")
    if options.graph and options.device != "cuda":
        return _fail("--graph: only with --device cuda")
    if options.what == "roofline" and (options.compiled or options.graph):
        return _fail("roofline runs layer by layer: leave --compiled and --graph out")
    if options.tuned and report.allocator() != "tuned":  # read once, when a process starts
        arguments = [sys.executable, "-m", "gclib.cli", *options.arguments]
        sys.stdout.flush()
        return subprocess.call(arguments, env=os.environ | report.TUNED)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        records = _measured(options)
    except (ValueError, RuntimeError) as error:
        return _fail(error)
    parts = [*(options.block or []), *(row.replace("/", "-") for row in options.row or [])]
    parts += [f"table-{options.table}"] * bool(options.table)
    parts += [options.device, report.allocator(), *(options.dtype or [])]
    parts += ["x".join(map(str, shape)) for shape in options.shape or ()]
    parts += [f"{options.examples}-examples"] * bool(options.examples)
    parts += [f"{options.threads}-threads"] * bool(options.threads)
    parts += ["compiled"] * options.compiled + ["graph"] * options.graph
    return _bench_show(options, parts, records)


def _measured(options: argparse.Namespace) -> list[dict]:
    """The records of blocks, networks or the roofline."""
    from gclib.bench import blocks, networks, peers, roofline

    chosen = tuple(options.block or peers.PEERS)
    dtypes = tuple(options.dtype or blocks.DTYPES)
    how = {"device": options.device, "rounds": options.rounds}
    if options.what == "blocks":
        return blocks.run(
            groups=chosen,
            dtypes=dtypes,
            shapes=blocks.QUICK_SHAPES if options.quick else tuple(options.shape or ()),
            compiled=options.compiled,
            graph=options.graph,
            **how,
        )
    examples = options.examples or (64 if options.device == "cuda" else 4)
    how |= {"examples": 1, "size": 64} if options.quick else {"examples": examples}
    rows = [*(options.row or [])]
    rows += [row for row in networks.TABLE_4 if options.table and row.startswith(options.table)]
    rows = tuple(dict.fromkeys(rows))
    if options.what == "roofline":
        run = roofline.run
        how |= {"rows": rows} if rows else {}
        how |= {"seconds": 0.2} if options.quick else {}
    else:
        run = networks.run
        how |= {"compiled": options.compiled, "graph": options.graph}
        how["groups"] = rows or tuple(name for name in networks.GROUPS if name in chosen)
        if not how["groups"]:
            raise ValueError(f"--block: networks have {', '.join(networks.GROUPS)}")
    records = []
    for dtype in dtypes:
        records += run(dtype=blocks.DTYPES[dtype], channels_last=dtype == "bf16", **how)
    return records


def _bench_loaders(options: argparse.Namespace) -> int:
    from gclib.bench import loaders
    from gclib.datasets import BrokenData

    try:
        how = {"rounds": options.rounds, "quick": options.quick}
        records = loaders.run(videos=options.videos, **how)
    except (BrokenData, ValueError, OSError) as error:  # PyAV is not installed, or no videos
        return _fail(error)
    return _bench_show(options, ["yours"] if options.videos else [], records)


def _bench_processes(options: argparse.Namespace) -> int:
    from gclib.bench import course, detection, grading, training

    parts = [*(options.part or [])]
    try:
        if options.what == "course":
            records = course.run(tuple(options.part or course.PARTS), options.rounds)
        elif options.what == "training":
            if options.reference is None:
                return _fail(
                    "--reference P is missing: train.py of torchvision's references/classification "
                    "or references/detection"
                )
            half = options.dtype == ["bf16"]
            detects = options.reference.absolute().parent.name == "detection"
            how = {"batch": options.batch, "updates": options.updates, "rounds": options.rounds}
            how |= {"workers": options.read_by, "device": options.device, "half": half}
            if detects:
                records = detection.run(options.reference, **how)
            else:
                records = training.run(options.reference, network=options.network, **how)
            network = detection.NETWORK if detects else options.network
            parts = [network, options.device, "half" if half else "fp32"]
        else:
            records = grading.run(options.count)
    except (RuntimeError, ValueError, OSError) as error:
        return _fail(error)
    return _bench_show(options, parts, records)


def _bench_show(options: argparse.Namespace, parts: list[str], records: list[dict]) -> int:
    """Save or print what was measured."""
    from gclib.bench import report

    if options.save:
        name = "-".join([options.what, *parts]).replace("_", "-")
        command = shlex.join(["gclib", *options.arguments])
        try:
            report.save(options.save, name, command, options.device, records)
        except OSError as error:
            return _fail(error)
        print(f"Wrote {options.save / 'PERFORMANCE.md'}.")
    if options.json:
        print(json.dumps(records))
    elif not options.save:
        print("\n".join(report.as_lines(options.what, records)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
