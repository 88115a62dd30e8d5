"""Long use of one Blender: what people do, in an order that a seed gives again, with looks for what is left.

    soak = Soak(Downloads(b, folder, "threads"), server, seed="7", say=print)
    soak.start_and_cancel(1000)
    soak.use(600)

A `LeftError` says what was found, after which actions.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from blender import Blender, BlenderError, wait_until
from downloading import HOSTS, INSIDE, MODULE, SOON, Downloads, is_partial, wait_no_timer
from server import (
    Behaviour,
    Body,
    Data,
    Generated,
    Server,
    cut_after,
    drip,
    first,
    html_instead,
    limit_connections,
    pattern,
    reset_after,
    stall_after,
    stall_before_headers,
    status,
)
from x11 import ESCAPE, N

SHOWN_ACTIONS = 40  # the last ones, where something went wrong
LOOK_EACH = 50  # runs of start and cancel
PHASE = 100.0  # seconds of mixed use between two looks
BETWEEN = 0.2  # seconds between two actions, on average
RENDERED = 120.0  # seconds for a render of a few pixels
BAD_WORDS = re.compile(r"Traceback|Segmentation|Fatal|unforeseen|EXCEPTION_|assertion failed", re.I)
GROWTH = 32  # MiB; 500 runs that leak 64 KiB each
MIB = 1 << 20
TAB, A = 23, 38  # the codes of keys


class LeftError(AssertionError):
    """Something was left behind, or went wrong; with the last actions."""


# What a server has.


class Links:
    """Links to files of every temper, each with a name of its own, and the digests of their bytes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._closed = server.gate()
        self._numbers = itertools.count()
        self._bodies: dict[str, Body] = {}

    def make(self, chance: Random) -> str:
        """One more link."""
        return chance.choice(_TEMPERS)(self, chance)

    def digest(self, name: str) -> str:
        """SHA-256 of what the file is to hold."""
        digest = hashlib.sha256()
        body = self._bodies[name]
        for piece in body.pieces(0, body.size):
            digest.update(piece)
        return digest.hexdigest()

    def forget(self) -> None:
        """What no row stands for any more."""
        self._bodies.clear()

    def _add(self, kind: str, body: Body, *behaviours: Behaviour, ranges: bool = True) -> str:
        name = f"{kind}-{next(self._numbers)}.blend"  # which a web page is no answer for
        self._bodies[name] = body
        return self._server.add(f"/{name}", *behaviours, body=body, ranges=ranges)

    def small(self, chance: Random) -> str:
        return self._add("small", Data(pattern(chance.randrange(200_000), chance.randrange(9))))

    def large(self, chance: Random) -> str:
        return self._add("large", _noise(chance, 8, 40))

    def slow(self, chance: Random) -> str:
        return self._add("slow", _noise(chance, 1, 4), drip(64 << 10, 0.1), ranges=chance.random() < 0.7)

    def segmented(self, chance: Random) -> str:
        """So slow for one connection that others help; the server takes only some of them, at times."""
        few = [limit_connections(2, chance.choice([403, 429, 503]))] if chance.random() < 0.4 else []
        return self._add("segmented", _noise(chance, 8, 24), *few, drip(128 << 10, 0.05))

    def stalled(self, chance: Random) -> str:
        body = _noise(chance, 1, 4)
        return self._add("stalled", body, stall_after(chance.randrange(body.size), self._closed))

    def silent(self, _chance: Random) -> str:
        return self._add("silent", Data(b"late"), stall_before_headers(self._closed))

    def broken(self, chance: Random) -> str:
        """Cut or reset a few times, then whole."""
        body = _noise(chance, 1, 3)
        breaks = chance.choice([cut_after, reset_after])(chance.randrange(body.size))
        return self._add("broken", body, first(chance.randrange(1, 3), breaks))

    def refused(self, chance: Random) -> str:
        answers = [status(403), status(404), status(503, {"Retry-After": "3600"}), html_instead()]
        return self._add("refused", Data(b"never"), chance.choice(answers))

    def busy(self, chance: Random) -> str:
        return self._add("busy", _noise(chance, 1, 2), first(chance.randrange(1, 3), status(503)))


_TEMPERS: Sequence[Callable[[Links, Random], str]] = (
    *[Links.small] * 4,
    *[Links.large] * 2,
    *[Links.slow] * 2,
    *[Links.segmented] * 2,
    Links.stalled,
    Links.silent,
    Links.broken,
    Links.refused,
    Links.busy,
)


def _noise(chance: Random, least: int, most: int) -> Generated:
    return Generated(chance.randrange(least * MIB, most * MIB), chance.randrange(9))


# What is left in Blender for it.


SOAKING = f"""
import contextlib, sys
sys.path += [path for path in [{str(Path(__file__).parents[1])!r}] if path not in sys.path]
import traces

@contextlib.contextmanager
def in_view3d(win=None):
    'Wherever people are: not every workspace has a 3D View.'
    win = win or window()
    area = max(win.screen.areas, key=lambda area: (area.type == "VIEW_3D", area.width * area.height))
    with bpy.context.temp_override(window=win, area=area, region=region_of(area)):
        yield

def can(operator):
    with in_view3d():
        return operator.poll()

def call(operator, *arguments, **options):
    'What people can do only where Blender offers it.'
    with in_view3d():
        return sorted(operator(*arguments, **options)) if operator.poll() else []

def rendering():
    return bpy.app.is_job_running("RENDER")

def expected_partials():
    names = part("transfer.names")
    rows = [row for row in session().rows if row.is_unfinished]
    return [names.part_name(row.url, row.directory) for row in rows]

def left_since(before):
    'Blender itself makes a key map for a menu while that is open.'
    left = traces.Traces.now().more_than(before)
    return [each for each in left if not each.startswith("keymap_items") or "downloads." in each]

def remove_all():
    for row in list(session().rows):
        session().remove(row, delete=True)
    session().mirror.flush()

def prepare(folder):
    'Renders are small, and Blender saves by itself.'
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = 64, 36, 100
    render.filepath = folder + "/frame-"
    bpy.context.scene.frame_end = 3
    bpy.context.scene.cycles.samples = 4
    bpy.context.scene.cycles.use_denoising = False  # Debian's 4.3 cannot
    bpy.context.preferences.view.use_save_prompt = False
    bpy.context.preferences.view.show_tooltips = False  # 5.2 crashes in a hint for a gizmo that has gone
    bpy.context.preferences.filepaths.use_auto_save_temporary_files = True
    bpy.context.preferences.filepaths.auto_save_time = 1
"""


# The soak.


class Soak:
    """One Blender's long day."""

    def __init__(
        self, downloads: Downloads, server: Server, *, seed: str, say: Callable[[str], object]
    ) -> None:
        self.d = downloads
        self.b: Blender = downloads.b
        self.links = Links(server)
        self.counts: Counter[str] = Counter()
        """What was done how often, and what was seen."""
        self.memory: list[int] = []
        """Blender's, in MiB, at each look."""
        self.folder = self.d.folder.with_name("blend-files")
        self._seed = seed
        self._say = say
        self._actions: deque[str] = deque(maxlen=SHOWN_ACTIONS)
        self._console_read = 0  # characters
        self._nudges = 0
        self._autosaves: set[tuple[str, int]] = set()
        self.folder.mkdir(exist_ok=True)
        self.b.run(INSIDE)
        self.b.run(SOAKING)
        self._reset()

    def _reset(self) -> None:
        """Blender's own start file in one window, saved."""
        self.b.reset()
        self.prepare()
        self.b.run(f"call(bpy.ops.wm.save_as_mainfile, filepath={str(self.folder / 'saved.blend')!r})")
        self.b.steps("pause(0)")

    def prepare(self) -> None:
        """Renders of this file are over soon; a file load or an undo makes them long again."""
        self.b.run(f"prepare({str(self.folder)!r})")

    # Runs of start and cancel.

    def start_and_cancel(self, runs: int) -> None:
        """That many runs, each cancelled at a moment of its own, with threads and with a child."""
        with self._telling():
            for number in range(-3, 0):  # so that Blender has opened what it keeps open
                self._cancelled_run(number)
            self._look("three runs before", is_first=True)
            for number in range(1, runs + 1):
                self._cancelled_run(number)
                if number % LOOK_EACH == 0 or number == runs:
                    self._look(f"{number} runs of start and cancel")
            self._check_memory_is_level()

    def _cancelled_run(self, number: int) -> None:
        chance = Random(f"{self._seed} run {number}")
        host = chance.choice(list(HOSTS))
        urls = [self.links.make(chance) for _ in range(chance.choice([1, 1, 2, 4, 20]))]
        moment = chance.choice([0.0, chance.uniform(0, 0.05), chance.uniform(0, 0.5), chance.expovariate(1)])
        end = chance.choice(_ENDS)
        self._actions.append(f"run {number}: {len(urls)} links, {host}, after {moment:.3f} s {end}")
        self.b.run(f"set_workers({HOSTS[host]!r})")
        self.d.start(*urls)
        time.sleep(moment)
        self.b.run(end)
        self._wait_over()
        statuses = Counter(self.d.statuses())
        self._hold(not {"QUEUED", "RUNNING", "PAUSED"} & set(statuses), f"not cancelled: {statuses}")
        self.counts.update({f"{status.lower()} rows": count for status, count in statuses.items()})
        self.counts[f"runs with {host}"] += 1
        self.b.run("remove_all()")

    # Mixed use.

    def use(self, seconds: float) -> None:
        """Everything that people do, for so long; first each once."""
        with self._telling():
            for action in ANYTHING:
                self._act(action, Random(f"{self._seed} {action.__name__}"))
            self._look("each action once", is_first=True)
            end = time.monotonic() + seconds
            numbers = itertools.count(1)
            for phase in itertools.count(1):
                actions = ONE_FILE if phase % 2 == 0 else ANYTHING
                self._phase(min(end, time.monotonic() + PHASE), actions, numbers)
                self._look(f"phase {phase}, {self.counts['actions']} actions")
                if time.monotonic() > end:
                    return

    def _phase(self, end: float, actions: Mapping[Action, int], numbers: Iterator[int]) -> None:
        while time.monotonic() < end:
            chance = Random(f"{self._seed} action {next(numbers)}")
            (action,) = chance.choices(list(actions), list(actions.values()))
            self._act(action, chance)
            time.sleep(chance.expovariate(1 / BETWEEN))

    def _act(self, action: Action, chance: Random) -> None:
        name = action.__name__.replace("_", " ").strip()
        self._actions.append(name)
        self.counts["actions"] += 1
        self.counts[name] += 1
        if action not in WHILE_RENDERING:
            self._wait_rendered()
        action(self, chance)
        self._look_at_console()
        self._count_autosaves()

    def _wait_rendered(self) -> None:
        wait_until(lambda: not self.b.eval("rendering()"), RENDERED, "the end of a render")

    def note(self, words: str) -> None:
        """What an action chose."""
        self._actions[-1] += f" {words}"

    # Looks.

    def _look(self, after: str, *, is_first: bool = False) -> None:
        """Everything is cancelled and removed; then nothing is left that was not there at the first look."""
        self._wait_rendered()
        if self.b.eval("bpy.context.screen.is_animation_playing"):
            self.b.run("call(bpy.ops.screen.animation_play)")
        self.b.run("bpy.ops.downloads.cancel()")
        self._wait_over()
        self.check_files()
        self.b.run("remove_all()")
        self._reset()
        self._wait_over()
        wait_no_timer(self.b)
        self._check_folder_is_empty()
        if is_first:
            self.b.run("before = traces.Traces.now()")
        self._check_traces()
        self._look_at_console()
        self.memory.append(memory_of(self.b.pid))
        self._say(f"after {after}: nothing left, {self.memory[-1]} MiB")

    def _wait_over(self) -> None:
        left = "[modal(), workers(), session().run is not None]"

        def is_over() -> bool:
            self._nudge()
            return bool(self.b.eval(left) == [[], [], False])

        wait_until(is_over, SOON, lambda: f"left: {self.b.eval(left)}")
        wait_until(lambda: not self.d.children(), SOON, lambda: f"left: {self.d.children()}")

    def _nudge(self) -> None:
        """Blender's own render operator ends with the next event after the render."""
        self._nudges += 1
        self.b.display.move_pointer(300 + self._nudges % 2, 300)

    def check_files(self) -> None:
        """What is finished is whole; every partial file belongs to a row."""
        for row in self.d.rows():
            if row.status == "FINISHED":
                self.counts["finished files"] += 1
                digest = hashlib.sha256(Path(row.filepath).read_bytes()).hexdigest()
                self._hold(digest == self.links.digest(row.url.rpartition("/")[2]), f"{row} is damaged")
        partial = {path.name.removesuffix(".json") for path in self._downloaded() if is_partial(path)}
        unknown = partial - set(self.b.eval("expected_partials()"))
        self._hold(not unknown, f"partial files without a row: {unknown}")
        self.counts["partial files"] += len(partial)

    def _check_folder_is_empty(self) -> None:
        for path in self._downloaded():
            if not is_partial(path):
                path.unlink()
        wait_until(lambda: not self._downloaded(), SOON, lambda: f"left: {self._downloaded()}")
        self.links.forget()

    def _downloaded(self) -> list[Path]:
        return list(self.d.folder.glob("*"))

    def _check_traces(self) -> None:
        left = "left_since(before)"
        wait_until(lambda: not self.b.eval(left), SOON, lambda: f"left: {self.b.eval(left)}")

    def _check_memory_is_level(self) -> None:
        """In the second half of the looks it grows by less than what a leak in each run would add up to."""
        half = self.memory[len(self.memory) // 2 :]
        self._hold(half[-1] - half[0] < GROWTH, f"memory grows: {self.memory} MiB")

    def _look_at_console(self) -> None:
        text = self.b.console
        new, self._console_read = text[self._console_read :], len(text)
        self._hold(not BAD_WORDS.search(new), f"Blender wrote:\n{new}")

    def _count_autosaves(self) -> None:
        files = self.b.folder.rglob("*_autosave.blend")
        self._autosaves |= {(file.name, file.stat().st_mtime_ns) for file in files}
        self.counts["autosaves"] = len(self._autosaves)

    def _hold(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise LeftError(otherwise)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note("The last actions:\n" + "\n".join(self._actions))
            raise


def memory_of(pid: int) -> int:
    """What a process has in memory, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    (kib,) = re.findall(r"^VmRSS:\s+(\d+) kB", text, re.M)
    return int(kib) >> 10


_ENDS = (
    *["bpy.ops.downloads.cancel()"] * 5,
    "for item in state().items: bpy.ops.downloads.cancel(uid=item.uid)",
    "bpy.ops.downloads.pause(); bpy.ops.downloads.cancel()",
    "bpy.ops.downloads.cancel(); bpy.ops.downloads.retry(); bpy.ops.downloads.cancel()",
    "for uid in [item.uid for item in state().items]: bpy.ops.downloads.remove(uid=uid, delete_partial=True)",
)


# Actions: downloads.


Action = Callable[[Soak, Random], None]


def add(soak: Soak, chance: Random) -> None:
    urls = [soak.links.make(chance) for _ in range(chance.choice([1, 1, 2, 3, 30]))]
    soak.note(f"{len(urls)}")
    soak.d.start(*urls)


def add_by_a_script(soak: Soak, chance: Random) -> None:
    soak.d.execute(*[soak.links.small(chance) for _ in range(chance.randrange(1, 9))])


def _on_rows(name: str) -> Action:
    """An operator on one row or on all of them."""

    def act(soak: Soak, chance: Random) -> None:
        if chance.random() < 0.6:
            _on_some(soak, chance, 1, name)
        else:
            soak.d.act(name)

    act.__name__ = name
    return act


def _on_some(soak: Soak, chance: Random, count: int, name: str, **options: object) -> None:
    """On so many rows at most, at one go: what was removed leaves the list in a moment."""
    soak.b.run(
        f"""
uids = [item.uid for item in state().items]
for uid in random.Random({chance.random()}).sample(uids, min(len(uids), {count})):
    act({name!r}, uid=uid, **{options!r})
"""
    )


def remove(soak: Soak, chance: Random) -> None:
    _on_some(soak, chance, chance.choice([1, 1, 20]), "remove", delete_partial=True)


def move(soak: Soak, chance: Random) -> None:
    _on_some(soak, chance, 1, "move", direction=chance.choice(["TOP", "UP", "DOWN", "BOTTOM"]))


def other_workers(soak: Soak, chance: Random) -> None:
    soak.b.run(f"set_workers({chance.choice(list(HOSTS.values()))!r})")


def disable_and_enable(soak: Soak, chance: Random) -> None:
    soak.b.run(f"call(bpy.ops.preferences.addon_disable, module={MODULE!r})")
    time.sleep(chance.uniform(0, 1))
    soak.b.run(f"call(bpy.ops.preferences.addon_enable, module={MODULE!r})")
    soak.b.wait("session().store.is_open")  # in a moment; then its partial files have rows again
    other_workers(soak, chance)


# Actions: Blender.


def edit(soak: Soak, chance: Random) -> None:
    soak.b.run(chance.choice(_EDITS))
    soak.b.run("call(bpy.ops.ed.undo_push, message='Edit')")


_EDITS = (
    "call(bpy.ops.mesh.primitive_cube_add)",
    "call(bpy.ops.mesh.primitive_monkey_add)",
    "call(bpy.ops.object.select_by_type, type='MESH'); call(bpy.ops.object.delete)",
    "call(bpy.ops.object.editmode_toggle)",
    "call(bpy.ops.transform.translate, value=(1, 0, 0))",
)


def undo(soak: Soak, chance: Random) -> None:
    for _ in range(chance.randrange(1, 4)):
        soak.b.run("call(bpy.ops.ed.undo)")


def redo(soak: Soak, _chance: Random) -> None:
    soak.b.run("call(bpy.ops.ed.redo)")


def keys(soak: Soak, chance: Random) -> None:
    """The keyboard's own, so that they reach whatever has the focus."""
    for _ in range(chance.randrange(1, 4)):
        soak.b.display.press_key(chance.choice([ESCAPE, N, TAB, A]))


def workspace(soak: Soak, chance: Random) -> None:
    """The workspaces that draw little: software GL is slow."""
    name = chance.choice(["Layout", "Modeling", "UV Editing", "Scripting", "Animation"])
    soak.b.run(f"window().workspace = bpy.data.workspaces.get({name!r}) or window().workspace")


def full_screen(soak: Soak, chance: Random) -> None:
    soak.b.run("call(bpy.ops.screen.screen_full_area)")
    time.sleep(chance.uniform(0, 0.5))
    leave_full_screen(soak)


def leave_full_screen(soak: Soak) -> None:
    """Where one area fills the window, by us or by a render."""
    soak.b.run("if window().screen.show_fullscreen: call(bpy.ops.screen.back_to_previous)")
    soak.b.steps("pause(0)")


def areas(soak: Soak, chance: Random) -> None:
    direction = chance.choice(["VERTICAL", "HORIZONTAL"])
    soak.b.run(f"call(bpy.ops.screen.area_split, direction={direction!r}, factor=0.5)")
    soak.b.steps("pause(0)")
    soak.b.run("call(bpy.ops.screen.area_close)")


def windows(soak: Soak, chance: Random) -> None:
    """Another one; one of them is closed: the first, which a run is in, or the other."""
    leave_full_screen(soak)
    if not soak.b.eval("can(bpy.ops.wm.window_new_main)"):
        return
    soak.b.new_window(main=True)
    time.sleep(chance.uniform(0, 0.5))
    soak.b.close_window(chance.randrange(2))
    soak.b.wait("len(bpy.context.window_manager.windows) == 1")
    soak.b.steps("pause(0)")


def playback(soak: Soak, chance: Random) -> None:
    soak.b.run("call(bpy.ops.screen.animation_play)")
    time.sleep(chance.uniform(0, 1))
    soak.b.run("call(bpy.ops.screen.animation_play)")


def save(soak: Soak, _chance: Random) -> None:
    soak.b.run(f"call(bpy.ops.wm.save_as_mainfile, filepath={str(soak.folder / 'saved.blend')!r})")


# Actions: file loads.


def load(soak: Soak, chance: Random) -> None:
    saved = str(soak.folder / "saved.blend")
    what = chance.choice(
        [
            "wm.read_homefile",
            "wm.read_homefile, use_factory_startup=True",
            f"wm.open_mainfile, filepath={saved!r}",
            "wm.revert_mainfile",
        ]
    )
    soak.note(what)
    soak.b.run(f"call(bpy.ops.{what})")
    soak.b.steps("pause(0)")
    soak.prepare()


def failing_load(soak: Soak, _chance: Random) -> None:
    broken = soak.folder / "broken.blend"
    broken.write_bytes(b"not a file of Blender's")
    try:
        soak.b.run(f"call(bpy.ops.wm.open_mainfile, filepath={str(broken)!r})")
    except BlenderError as error:
        if "RuntimeError" not in str(error):
            raise


# Actions: renders.


def render(soak: Soak, chance: Random) -> None:
    """F12, of a picture or an animation; what is done meanwhile may be among `WHILE_RENDERING`."""
    engine = chance.choice(["CYCLES", "CYCLES", "BLENDER_WORKBENCH"])
    shown = chance.choice(["NONE", "AREA", "SCREEN"])
    animation = chance.random() < 0.5
    soak.note(f"{engine}, {shown}, animation={animation}")
    soak.prepare()
    soak.b.run(f"bpy.context.scene.render.engine = {engine!r}")
    soak.b.run(f"bpy.context.preferences.view.render_display_type = {shown!r}")
    soak.b.run(f"bpy.context.scene.camera and call(bpy.ops.render.render, 'INVOKE_DEFAULT', {animation=})")
    time.sleep(chance.uniform(0, 0.5))


def stop_render(soak: Soak, _chance: Random) -> None:
    """ESC, which is the newest operator's: the render's, where one goes on."""
    soak.counts["renders stopped"] += soak.b.eval("rendering()")
    soak.b.display.press_key(ESCAPE)


def render_and_stop(soak: Soak, chance: Random) -> None:
    render(soak, chance)
    stop_render(soak, chance)


def blocking_render(soak: Soak, _chance: Random) -> None:
    soak.prepare()
    soak.b.run("bpy.context.scene.render.engine = 'BLENDER_WORKBENCH'")
    soak.b.run("bpy.context.scene.camera and call(bpy.ops.render.render)")


pause, resume, cancel, retry = (_on_rows(name) for name in ("pause", "resume", "cancel", "retry"))


def clear(soak: Soak, _chance: Random) -> None:
    soak.check_files()
    soak.d.act("clear")


WHILE_RENDERING = (add, pause, resume, cancel, retry, remove, move, stop_render)
LOADS = (load, failing_load, disable_and_enable)

ANYTHING: Mapping[Action, int] = {
    add: 14,
    add_by_a_script: 2,
    pause: 6,
    resume: 8,
    cancel: 3,
    retry: 4,
    remove: 3,
    move: 3,
    clear: 1,
    other_workers: 2,
    disable_and_enable: 1,
    edit: 6,
    undo: 4,
    redo: 2,
    keys: 3,
    workspace: 3,
    full_screen: 2,
    areas: 2,
    windows: 2,
    playback: 2,
    save: 1,
    load: 3,
    failing_load: 1,
    render: 3,
    render_and_stop: 2,
    blocking_render: 1,
}
ONE_FILE = {action: often for action, often in ANYTHING.items() if action not in LOADS}
"""Without what makes Blender wait anew until it saves by itself."""
