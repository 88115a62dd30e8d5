"""The modal operator that a run lives in: the extension's, or that of a copy in another add-on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import bpy

from . import current, peek
from .enabling import Lazy

if TYPE_CHECKING:
    from .enabling import Registered
    from .tally import Tally

online = Lazy(".online", __package__)
popup = Lazy(".popup", __package__)
run = Lazy(".run", __package__)
watch = Lazy(".watch", __package__)
workers = Lazy("..workers", __package__)

LINGER = 0.1  # seconds between two looks whether the operator has ended


class Modal:
    """Mixed into an operator: it begins a run, ticks it, and closes it on every way out."""

    _run: Any = None
    lingers = False
    """Whether its add-on is disabled, and only waits for the class to be of no use to Blender."""

    def begin(self, context: Any) -> set[str]:
        """Have what is QUEUED run, in the first window; a run that goes on takes it."""
        queue = current()
        if queue.run:
            return {"FINISHED"}
        if not queue.wants_run:
            return {"CANCELLED"}
        window = context.window_manager.windows[0]
        with context.temp_override(window=window):  # the timer ticks only where the handler is
            self._run = run.Run(queue, window)
            context.window_manager.modal_handler_add(self)
        self._run.begin()
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> set[str]:
        if self._run and self._run.is_closed:
            return {"CANCELLED"}  # the add-on was disabled
        if event.type != "TIMER" or not self._run:
            return {"PASS_THROUGH"}
        if reason := online.offline_reason():
            return self._give_up({"WARNING"}, f"Downloads were paused. {reason}", reason)
        try:
            if self._run.tick():
                self.ticked()
                return {"PASS_THROUGH"}
        except BaseException as error:  # also KeyboardInterrupt, which ends the operator like any other
            return self._broken(error)
        return self._end()

    def _end(self) -> set[str]:
        queue = current()
        if self._run and self._run.is_interrupted:
            queue.tally.began = time.monotonic()
            watch.start_again()
            return {"FINISHED"}
        tally = queue.end_tally()
        self.over(tally)
        return {"FINISHED"}

    def _broken(self, error: BaseException) -> set[str]:
        """A defect; told without its message, which may hold a link's secrets."""
        import traceback

        traceback.print_tb(error.__traceback__)
        name = type(error).__name__
        what = f"Downloads were paused: something unforeseen went wrong ({name})"
        return self._give_up({"ERROR"}, f"{what}. What was received is kept: press Resume")

    def _give_up(self, kind: set[str], sentence: str, why: str = "") -> set[str]:
        """Close through the same door, keep the rows, say why."""
        if self._run:
            current().pause_all(self._run, why)
        self.say(kind, sentence)
        return {"CANCELLED"}

    def cancel(self, context: Any) -> None:
        """Blender takes the operator away: a file load, its window closed, quit."""
        if self._run and not self._run.is_closed:  # as it is where the add-on was disabled before
            self._run.close(forced=True)
            current().interrupted(workers.Status.QUEUED)
            watch.start_again()

    @classmethod
    def step_aside(cls) -> None:
        """Another copy of the engine is about to, since an autosave is late: be away at the same time."""
        if going_on := _going_on():
            going_on.step_aside()

    @classmethod
    def is_stepping_aside(cls) -> bool:
        """Whether it is about to be away."""
        going_on = _going_on()
        return going_on is not None and going_on.is_interrupted

    def ticked(self) -> None:
        """The run goes on."""

    def over(self, tally: Tally) -> None:
        """The run has come to its end."""

    def say(self, kind: set[str], sentence: str) -> None:
        """It was given up."""


def _going_on() -> Any:
    """The run, if there is one: an operator may outlive its add-on, and others ask it."""
    queue = peek()
    return queue and queue.run


# The modal operator of a run that was closed lives until its window's next event. If its class went, or
# another took its place before that, Blender 4.3 would crash when the next modal operator begins. So it would
# at the next event where a dialog of it is open, and 5.2 at once.


class Lingering:
    """Operators' classes, which are registered and unregistered only while no operator of them lives.

    Of the first a run is made; all may have a dialog, which they tell `popup` of when it is drawn, or a file
    browser.
    """

    def __init__(self, modal: type[Modal], *others: type) -> None:
        self._modal, self._classes = modal, (modal, *others)
        self._has_dialog: Callable[[], bool] = bool
        self._events: list[Any] = []  # timers that make such an event
        self._adding, self._removing = self._add, self._remove  # each one object, by which Blender knows it

    def register(self, enabled: Registered) -> None:
        """Register it, as soon as that can be, and unregister it at the end."""
        enabled.callback(self._leave)
        if self._add():
            bpy.app.timers.register(self._adding, first_interval=LINGER, persistent=True)

    def _add(self) -> float | None:
        if bpy.app.timers.is_registered(self._removing):  # disabled during a run, a moment ago
            self._modal.lingers = False
            return None
        theirs = getattr(bpy.types, self._modal.__name__, None)
        if theirs and (watch.operator_lives() or getattr(theirs, "lingers", False)):
            return LINGER  # of another copy: one from another repository, or before an update
        for cls in self._classes:
            bpy.utils.register_class(cls)
        return None

    def _leave(self) -> None:
        if bpy.app.timers.is_registered(self._adding):
            bpy.app.timers.unregister(self._adding)
            return
        self._has_dialog = popup.is_open  # of this very module: after an update there is another one
        self._modal.lingers = True
        if self._remove() and not bpy.app.timers.is_registered(self._removing):
            bpy.app.timers.register(self._removing, first_interval=LINGER, persistent=True)
            manager = bpy.context.window_manager
            self._events += [manager.event_timer_add(LINGER / 2, window=window) for window in manager.windows]

    def _remove(self) -> float | None:
        """Once no operator lives that was there before; the classes stay if the add-on is enabled again."""
        is_leaving = self._modal.lingers
        lives = watch.operator_lives(*(cls.__name__ for cls in self._classes)) or self._has_dialog()
        if lives and (is_leaving or not _going_on()):
            return LINGER
        self._stop_events()
        for cls in self._classes if is_leaving else ():
            with suppress(RuntimeError):  # somebody else has done it
                bpy.utils.unregister_class(cls)
        return None

    def _stop_events(self) -> None:
        self._modal.lingers = False
        while self._events:
            bpy.context.window_manager.event_timer_remove(self._events.pop())
