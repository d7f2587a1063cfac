"""The command line: the only file that exits the process.

Exit codes: 0 done (check: all well) · 1 an error with one sentence (check: something degraded) · 2 cannot run, or a
wrong command line.
"""

from __future__ import annotations

import _thread
import argparse
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from otelbpf import __version__
from otelbpf.errors import CannotRun, ConfigError, Hangs, OtelbpfError, described
from otelbpf.voice import Voice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otelbpf.config import Config
    from otelbpf.reload import Wish

STDERR = 2
OF_THE_AGENT = {"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED"}
"""Variables that the SDK may read: who the agent is, and whether it speaks of itself."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits."""
    _open_standard_streams()
    options = _parser().parse_args(arguments)
    os.environ.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # numpy's, which we never use: idle threads cost memory and wakes
    try:
        code = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        code = 0
    except Hangs as error:
        _refuse(error, 1)
        os._exit(1)
    except (CannotRun, ConfigError) as error:
        code = _refuse(error, 2)
    except OtelbpfError as error:
        code = _refuse(error, 1)
    except OSError as error:  # no descriptor left, no memory for a ring: whatever it was needed for
        where = f"{error.filename}: " if error.filename else ""
        code = _refuse(CannotRun(f"the system refuses: {where}{error.strerror or error}"), 2)
    except KeyboardInterrupt:
        code = 130
    _exit(code)


def _exit(code: int) -> NoReturn:
    """Not by the interpreter's end while a thread is still in a library's code, such as a handshake that has not ended
    in time: exit() frees what OpenSSL uses there, and one in five such agents died of it."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Puts /dev/null where the caller closed 0, 1 or 2: else the next file or socket has that number, and is written to
    as if it were the output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _refuse(error: Exception, code: int) -> int:
    with Voice(STDERR) as voice:
        for line in str(error).splitlines():
            voice.say(f"otelbpf: {line}")
    return code


@contextmanager
def _speaking() -> Iterator[Voice]:
    """Whatever is to be said on stderr, by any thread, without waiting for whoever reads it."""
    with Voice(STDERR) as voice:
        logging.getLogger().addHandler(voice)
        threading.excepthook = _say_what_ended
        try:
            yield voice
        finally:
            logging.getLogger().removeHandler(voice)


def _say_what_ended(ended: threading.ExceptHookArgs) -> None:
    """In place of a traceback: a thread that nobody else asks how it fares."""
    name = ended.thread.name if ended.thread else "unknown"
    logging.getLogger("otelbpf").error(
        "the thread %s ended because of a bug in otelbpf: %s", name, described(ended.exc_value)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otelbpf", description="eBPF to OpenTelemetry: TCP connections, DNS lookups and processes of this node."
    )
    parser.add_argument("--version", action="version", version=f"otelbpf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, "watch this node and export what is seen")
    _configurable(run)
    run.add_argument("--for", dest="seconds", type=_duration, metavar="10s", help="stop after this time")
    run.add_argument("--watch", action="store_true", help="reload the configuration when its file changes")
    run.add_argument("--record", type=Path, metavar="FILE", help="also write the kernel's bytes to FILE, for replay")

    check = _command(commands, "check", _check, "say what works on this node, what does not, and why")
    _configurable(check)
    check.add_argument("--json", action="store_true", help="the report as JSON")

    config = _command(commands, "config", None, "validate, print or describe the configuration")
    actions = config.add_subparsers(required=True, metavar="ACTION")
    for name, action, text in (
        ("validate", _config_validate, "exit 0 when the configuration is good"),
        ("print", _config_print, "the effective configuration, secrets hidden"),
        ("schema", _config_schema, "the JSON Schema of the configuration"),
    ):
        _configurable(_command(actions, name, action, text))

    replay = _command(commands, "replay", _replay, "take a recording through the whole line, without root")
    replay.add_argument("file", type=Path, metavar="FILE")
    _configurable(replay)

    _command(commands, "probes", _probes, "the probes, their signals, attributes and cost")
    return parser


def _command(commands: argparse._SubParsersAction, name: str, action: object, text: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]  # argparse's own class is generic in the stubs only
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    if action is not None:
        parser.set_defaults(command=action)
    return parser


def _configurable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration file")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="set one key; may be repeated"
    )


def _duration(text: str) -> float:
    from otelbpf.config import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _load(options: argparse.Namespace, environ: Mapping[str, str] = os.environ, *, may_be_empty: bool = True) -> Config:
    from otelbpf import config

    return config.load(options.config, options.overrides, environ, may_be_empty=may_be_empty)


def _taken_variables() -> Mapping[str, str]:
    """The environment, for the configuration. OpenTelemetry's variables are taken out of it: its SDK, which carries what
    the agent says of itself, would obey them as well, and does not start where one is wrong."""
    environ = dict(os.environ)
    for name in environ:
        if name.startswith("OTEL_") and name not in OF_THE_AGENT:
            del os.environ[name]
    return environ


def _run(options: argparse.Namespace) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # asked for too soon, a reload must not end the agent
    from otelbpf import limits

    limits.refuse_too_little()  # before libraries are imported that cannot do with less
    from otelbpf import agent
    from otelbpf.config.watched import WatchedFile
    from otelbpf.reload import Wish, no_file

    if options.watch and options.config is None:
        raise CannotRun("--watch needs a file to watch; give it with -c FILE")
    watched = WatchedFile(options.config) if options.watch else None
    environ = _taken_variables()
    config = _load(options, environ)  # after the first look at the file, so that no change is missed in between
    ending = threading.Event()
    again = no_file if options.config is None else partial(_load, options, environ, may_be_empty=False)
    wish = Wish(again, watched)
    _end_on_signals(ending)
    _reload_on_hangup(ending, wish)
    with _speaking() as voice:
        for line in agent.run(config, ending, seconds=options.seconds, record=options.record, wish=wish):
            voice.say(line)
    return 0


def _end_on_signals(ending: threading.Event) -> None:
    """The first SIGTERM or SIGINT ends the agent in order, a second one at once."""
    signalled = False

    def end(number: int, _frame: object) -> None:
        nonlocal signalled
        if signalled:
            os._exit(128 + number)
        signalled = True
        # Not here: the signal may have interrupted a wait for this very event, which holds the event's lock. And not by
        # threading.Thread, whose start takes a lock, too.
        _thread.start_new_thread(ending.set, ())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _reload_on_hangup(ending: threading.Event, wish: Wish) -> None:
    """SIGHUP asks for the configuration to be read again. Where it says that the terminal was closed from which the
    agent was started it ends the agent in order, unless that was to ignore it (nohup)."""
    may_end = _has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN

    def hang_up(_number: int, _frame: object) -> None:
        if may_end and not _has_terminal():
            _thread.start_new_thread(ending.set, ())  # as above
        else:
            wish.ask()

    signal.signal(signal.SIGHUP, hang_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal; the kernel takes it away before it tells of a hangup."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _check(options: argparse.Namespace) -> int:
    from otelbpf import limits

    limits.refuse_too_little()
    from otelbpf import doctor, findings

    report = doctor.report(_load(options))
    print(findings.as_json(report) if options.json else findings.as_text(report))
    return report.exit_code


def _config_validate(options: argparse.Namespace) -> int:
    _load(options)
    print(f"{options.config or 'the defaults'}: valid")
    return 0


def _config_print(options: argparse.Namespace) -> int:
    from otelbpf import config

    sys.stdout.write(config.render(_load(options)))
    return 0


def _config_schema(_options: argparse.Namespace) -> int:
    import json

    from otelbpf import config

    print(json.dumps(config.schema(), indent=2))
    return 0


def _replay(options: argparse.Namespace) -> int:
    from otelbpf import replay

    config = _load(options)
    with _speaking() as voice:
        for line in replay.replay(options.file, config):
            voice.say(line)
    return 0


def _probes(_options: argparse.Namespace) -> int:
    from otelbpf.probes import PROBES
    from otelbpf.signals import document

    print(document.probes(PROBES))
    return 0
