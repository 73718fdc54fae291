"""Commands in child processes: their lines, their ends, and what stops them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

import pytest

from mesm_core.children import Children, Command, Ended, Line


def commands(programs: Mapping[str, str], **environment: str) -> dict[str, Command]:
    return {name: Command([sys.executable, "-c", text], environment) for name, text in programs.items()}


def test_lines_and_exit_codes_are_passed_on() -> None:
    programs = {
        "a": "import os, sys; print(os.environ['GREETING']); print('oh', file=sys.stderr); sys.exit(3)",
        "b": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    }
    events = list(Children(commands(programs, GREETING="hello"), most=2).run())
    assert {event for event in events if isinstance(event, Line)} == {
        Line("a", "hello", error=False),
        Line("a", "oh", error=True),
    }
    assert {event for event in events if isinstance(event, Ended)} == {Ended("a", 3), Ended("b", 137)}


def test_so_many_run_at_once() -> None:
    """Each child waits for its input to end, which ``run`` never closes: the second starts when the first has ended."""
    programs = {"first": "print('ready', flush=True); input()", "second": "print('done')"}
    children = Children(commands(programs), most=1)
    order = []
    for event in children.run():
        order.append(event)
        if event == Line("first", "ready", error=False):
            assert list(children._running) == ["first"]
            children._running["first"].terminate()
    assert [event.name for event in order] == ["first", "first", "second", "second"]
    assert order[1] == Ended("first", 143)


def test_stopping_sends_a_signal_and_starts_no_more() -> None:
    handle = (
        "import signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit(7)); print('on', flush=True); input()"
    )
    children = Children(commands({"a": handle, "b": handle, "c": handle}), most=2)
    ready, ended = 0, {}
    for event in children.run():
        if isinstance(event, Ended):
            ended[event.name] = event.code
        elif (ready := ready + 1) == 2:
            children.stop(signal.SIGINT)
    assert ended == {"a": 7, "b": 7}


def test_children_end_with_the_caller() -> None:
    children = Children(commands({"a": "print('on', flush=True); input()"}), most=1)
    events = children.run()
    assert next(events) == Line("a", "on", error=False)
    child = children._running["a"]
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert child.returncode == -signal.SIGTERM
