"""The `gdkvm` command: 0 done, 1 could not do it (a message says what and why), 2 wrong usage."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

from model import EchoError
from server.__main__ import version_line
from server.commands.keys import add_key, keys_file, list_keys, read_key, revoke_key
from server.commands.replay import run_replay
from server.commands.segment import list_weights, run_segment
from server.commands.serving import run_server
from server.commands.terminal import (
    FAILED,
    CommandError,
    Terminal,
    discard_unwritten,
    foreign_errors,
)
from server.keys import SCOPES
from server.local_ray import close_ray_to_strangers
from server.settings import load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

View = Literal["A4C", "A2C"]
AlphaRule = Literal["official", "rerelease"]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
KeyFile = Annotated[Path | None, typer.Option(help="File that holds the server's API key.")]
ViewOption = Annotated[
    View | None, typer.Option(help="Apical view; stands before what the file says.")
]


def show_version(is_wanted: bool) -> None:
    """Say the version and leave, where it is asked for."""
    if is_wanted:
        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def name_version(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Real-time echocardiography: masks, volumes and ejection fraction. Research use only."""


@contextmanager
def command(as_json: bool = False) -> Iterator[Terminal]:
    """The one place where errors become words and exit codes."""
    terminal = Terminal(as_json)
    try:
        with foreign_errors():
            yield terminal
    except EchoError as error:
        terminal.refuse(error)
        sys.exit(FAILED)


@contextmanager
def installed(extra: str) -> Iterator[None]:
    """Guard the import of what not every installation has.

    Raises:
        CommandError: something is not installed; the message says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(
            "not_installed", f"this needs {error.name}, which is not installed: {extra}"
        ) from error


TRAIN = "pip install 'gdkvm-live[train]', or make install-dev"
TENSORBOARD = "pip install 'gdkvm-live[train,tensorboard]'"
CLIENT = "pip install ./clients/python"
CLUSTER = "pip install 'gdkvm-live[cluster]'"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Live sessions alone, on replicas that share them.")
    ] = False,
    replicas: Annotated[int, typer.Option(min=1, help="With --ray: replicas at least.")] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="With --ray: replicas at most.")] = 1,
    cpus: Annotated[float, typer.Option(help="With --ray: processors of each.")] = 1.0,
) -> None:
    """Serve streams and clips; the settings are GDKVM_* variables."""
    with command():
        settings = load_settings(host, port)
        if not ray:
            run_server(settings)
            return
        close_ray_to_strangers()
        with installed(CLUSTER):
            from server.fleet.deployment import run_fleet
        asyncio.run(run_fleet(settings, (replicas, max(replicas, max_replicas)), cpus))


@app.command()
def segment(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Clips to segment.")],
    view: ViewOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for result.json, masks.npz and overlay.mp4.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Segment clips in this process: DICOM, a zip of DICOM, MP4, MOV, AVI or GIF."""
    with command(as_json) as terminal:
        run_segment(paths, view, out, terminal)


@app.command()
def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="Folder, manifest (.txt, .csv), or a DICOMweb server's address."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(help="Folder of tables, or s3://…; what is there is not done again."),
    ],
    view: Annotated[
        View | None, typer.Option(help="Apical view, where neither file nor manifest says it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model; the default one if unset.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Clips at once; one a processor if unset.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker.")] = 0,
    masks: Annotated[bool, typer.Option("--masks", help="Keep every clip's masks.npz.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Work anew on what was refused before.")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster; else this machine alone.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File that holds the DICOMweb server's token.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn an archive of clips into Parquet: one row a clip, one a beat; resumable."""
    with command(as_json) as terminal:
        if cluster is None:
            close_ray_to_strangers()
        with installed(CLUSTER):
            from server.batch.work import Task
            from server.commands.batch import BatchRequest, run_batch
        task = Task(model, view, masks, read_key(key_file))
        run_batch(BatchRequest(source, out, task, workers, again, cluster, gpus), terminal)


@app.command()
def stream(
    path: Annotated[Path, typer.Argument(help="Clip to stream.")],
    url: Annotated[str, typer.Option(help="Server, such as ws://127.0.0.1:8000/v1/stream.")],
    view: ViewOption = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Send at the pace of acquisition.")
    ] = False,
    key_file: KeyFile = None,
) -> None:
    """Stream a clip to a server and say each beat when it closes."""
    with command() as terminal:
        with installed(CLIENT):
            from server.commands.streaming import StreamRequest, stream_clip
        stream_clip(StreamRequest(path, url, view, realtime, read_key(key_file)), terminal)


@app.command()
def replay(
    log: Annotated[Path, typer.Argument(help="Log of a session that a server recorded.")],
    frames: Annotated[
        Path | None,
        typer.Option(help="What was streamed, for a log of hashes: a folder of payloads, a clip."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go through a recorded session again and hold every mask and EF to the record."""
    with command(as_json) as terminal:
        run_replay(log, frames, load_settings().threads, terminal)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for overlay.mp4.")] = Path("demo"),
) -> None:
    """Serve, stream the sample clip, say its beats, write an overlay video, stop."""
    with command() as terminal:
        with installed(CLIENT):
            from server.commands.demo import run_demo
        run_demo(out, terminal)


bench = typer.Typer(invoke_without_command=True)
app.add_typer(bench, name="bench")


@bench.callback()
def bench_machine(context: typer.Context, as_json: AsJson = False) -> None:
    """Measure this machine through a server of its own, or with `bench server` another one."""
    if context.invoked_subcommand is not None:
        return
    with command(as_json) as terminal:
        with installed(CLIENT):
            from server.commands.bench import run_bench
        run_bench(terminal)


@bench.command("server")
def bench_server(
    url: Annotated[str, typer.Option(help="Server, such as ws://127.0.0.1:8000.")],
    sessions: Annotated[int, typer.Option(min=1, max=4096, help="At once.")] = 8,
    fps: Annotated[float, typer.Option(min=0.1, max=1000, help="Frames a second of each.")] = 30.0,
    seconds: Annotated[float, typer.Option(min=0.1, max=86400, help="How long.")] = 10.0,
    clip: Annotated[Path | None, typer.Option(help="What to stream; the sample if unset.")] = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Put live sessions on a server: how long answers take, and what is dropped or refused."""
    with command(as_json) as terminal:
        with installed(CLIENT):
            from server.commands.bench import jpegs_of, size_of
            from server.commands.load import Load, measure_server
            from server.commands.streaming import websocket_url
        images = jpegs_of(clip)
        address, size, key = websocket_url(url), size_of(images), read_key(key_file)
        measure_server(Load(address, size, images, sessions, fps, seconds, key), terminal)


@app.command()
def weights(as_json: AsJson = False) -> None:
    """List the models that can be served, their checksums verified."""
    with command(as_json) as terminal:
        list_weights(terminal)


keys = typer.Typer(help="The API keys of a server.", no_args_is_help=True)
app.add_typer(keys, name="keys")

KeysFile = Annotated[Path | None, typer.Option(help="The file; else that of GDKVM_API_KEYS_FILE.")]
KeyName = Annotated[str, typer.Argument(help="Whose key: letters, digits, dots, dashes.")]


@keys.command("add")
def keys_add(
    name: KeyName,
    scopes: Annotated[str, typer.Option(help="What it opens.")] = ",".join(SCOPES),
    max_sessions: Annotated[int | None, typer.Option(min=1, help="Sessions at once.")] = None,
    max_fps: Annotated[float | None, typer.Option(help="Frames a second, all sessions.")] = None,
    max_upload_bytes: Annotated[int | None, typer.Option(min=1, help="Longest upload.")] = None,
    file: KeysFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once; a server that runs knows it at once."""
    with command(as_json) as terminal:
        limits = (max_sessions, max_fps, max_upload_bytes)
        add_key(keys_file(file, load_settings().api_keys_file), name, scopes, limits, terminal)


@keys.command("list")
def keys_list(file: KeysFile = None, as_json: AsJson = False) -> None:
    """List the keys' names, scopes and limits."""
    with command(as_json) as terminal:
        list_keys(keys_file(file, load_settings().api_keys_file), terminal)


@keys.command("revoke")
def keys_revoke(name: KeyName, file: KeysFile = None, as_json: AsJson = False) -> None:
    """Revoke a key; its live sessions end at their next frame."""
    with command(as_json) as terminal:
        revoke_key(keys_file(file, load_settings().api_keys_file), name, terminal)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file of settings; without it those of --out.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="CAMUS, EchoNet-Dynamic, PNG stills or DICOM with masks.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run, which goes on if begun; else a new one.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read every file, say what is there, train nothing.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log to OUT/tensorboard too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what the data are, and train, or go on training. Needs torch."""
    if config is None and data is None and out is None:
        raise typer.BadParameter(
            "say what to train on: --data PATH, a TOML file, or --out of a run"
        )
    with command(as_json) as terminal:
        with installed(TRAIN):
            from server.commands.training import TrainRequest, run_training
        with installed(TENSORBOARD):
            run_training(TrainRequest(config, data, out, check, tensorboard), terminal)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of annotated stills with index.csv.")],
    weights: Annotated[str | None, typer.Option(help="Model; the default one if unset.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    precision: Annotated[
        Literal["f32", "bf16", "int8"] | None, typer.Option(help="What serves here if unset.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score masks and ejection fractions against annotations."""
    with command(as_json) as terminal:
        with installed(TRAIN):
            from server.commands.evaluation import run_evaluation
        run_evaluation(data, weights, precision, terminal, report)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of a training run.")],
    name: Annotated[str, typer.Option(help="Name in the manifest.")],
    version: Annotated[str, typer.Option(help="Version in the manifest.")],
    out: Annotated[Path, typer.Option(help="Folder of weights and manifest.")] = Path("weights"),
    batch: Annotated[
        list[int] | None, typer.Option(min=2, help="Also a step of that many sessions; repeatable.")
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Also a step in eight bits, calibrated on this data."),
    ] = None,
) -> None:
    """Turn a training checkpoint into weights that can be served. Needs torch."""
    with command() as terminal:
        with installed(TRAIN):
            from server.commands.training import run_export
        run_export(checkpoint, out, (name, version), tuple(batch or ()), int8, terminal)


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="Published checkpoint, a .pth file.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("weights"),
    sha256: Annotated[str | None, typer.Option(help="What the file must hash to.")] = None,
    alpha_rule: Annotated[
        AlphaRule | None, typer.Option(help="Published memory law, where the file does not tell.")
    ] = None,
) -> None:
    """Turn a published checkpoint into safetensors and a manifest entry. Needs torch."""
    with command() as terminal:
        with installed(TRAIN):
            from server.commands.training import run_import
        run_import(file, out, sha256, alpha_rule, terminal)


def main() -> None:
    """Run the command that the arguments name."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the terminal's alphabet lacks is no reason not to say what was found.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with command():  # of what the parser says itself, such as --help
            app()
    finally:
        discard_unwritten()


if __name__ == "__main__":
    main()
