"""Runs inside Blender: does what a test asks, on the main thread, from an app timer.

Requests and answers are JSON with a length before it, over a socket that the
test gave Blender. No thread: what is tested counts them. What a request
defines stays for the next ones, and the functions below are there by name.

A request that must let Blender handle events in between is a generator: each
`yield` is one turn of Blender's main loop.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
import traceback

import bpy

IDLE = 0.005  # s to wait for a request in each idle turn of the main loop
PITCH = 17  # pixels between probes; a button is 20 high and at least as wide
EDGE = 14  # pixels from a region's side to its outermost buttons
F3_OPENS = 0.6  # s until the search takes letters; nothing tells when
F3_FINDS = 0.8  # s until it has searched; nothing tells when
SETTLE_TURNS = 3  # turns of the main loop that no pause goes below
LAYOUT_TURNS = 40  # turns until a tab that was asked for counts as missing

DIGITS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
KEYS = {str(digit): name for digit, name in enumerate(DIGITS)}
KEYS |= {" ": "SPACE", ".": "PERIOD", ",": "COMMA", "/": "SLASH", "-": "MINUS", "=": "EQUAL"}


# The server.


class Server:
    """Answers one request after the other; the test waits for each answer."""

    def __init__(self, descriptor):
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._buffer = bytearray()
        self._names = {"bpy": bpy, **{name: globals()[name] for name in OFFERED}}
        self._names["__name__"] = "test"
        self._steps = None

    def tick(self):
        """The timer: one step of a request under way, or a look for the next one."""
        if self._steps is None:
            request = self._next_request()
            if request is not None:
                self._begin(request)
        else:
            self._step()
        return 0.0

    def _next_request(self):
        # With simulated events Blender's idle loop does not sleep its 5 ms, so
        # that it would keep a processor busy: sleep them here.
        select.select([self._socket], [], [], IDLE)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while piece := self._socket.recv(65536):
                self._buffer += piece
        if len(self._buffer) < 4:
            return None
        end = 4 + struct.unpack_from("<I", self._buffer)[0]
        if len(self._buffer) < end:
            return None
        request = json.loads(self._buffer[4:end])
        del self._buffer[:end]
        return request

    def _begin(self, request):
        self._number = request["number"]
        source, kind = request["source"], request["kind"]
        try:
            code = compile(source, "<test>", "exec" if kind == "run" else "eval")
            value = exec(code, self._names) if kind == "run" else eval(code, self._names)
        except BaseException:
            self._answer(error=traceback.format_exc())
            return
        if kind == "steps":
            self._steps = value
        else:
            self._answer(value=value)

    def _step(self):
        try:
            next(self._steps)
            return
        except StopIteration as stop:
            answer = {"value": stop.value}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        self._steps = None
        self._answer(**answer)

    def _answer(self, **answer):
        data = json.dumps({"number": self._number, **answer}, default=_as_json).encode()
        self._socket.setblocking(True)
        with contextlib.suppress(ConnectionError):
            # Without the flag a test that is gone would kill a Blender that
            # leaves SIGPIPE at its default.
            self._socket.sendall(struct.pack("<I", len(data)) + data, socket.MSG_NOSIGNAL)
        self._socket.setblocking(False)


def _as_json(value):
    try:
        return list(value)
    except TypeError:
        return repr(value)


# Looking around.


def window(index=0):
    """The window with this index, oldest first."""
    return bpy.context.window_manager.windows[index]


def view3d(win=None):
    """The largest 3D View of a window."""
    areas = [area for area in (win or window()).screen.areas if area.type == "VIEW_3D"]
    if not areas:
        raise LookupError("this window shows no 3D View")
    return max(areas, key=lambda area: area.width * area.height)


def draw_little():
    """Without overlays and gizmos a 3D View costs a third."""
    for area in window().screen.areas:
        if area.type == "VIEW_3D":
            area.spaces.active.overlay.show_overlays = False
            area.spaces.active.show_gizmo = False


def region_of(area, kind="WINDOW"):
    return next(region for region in area.regions if region.type == kind)


@contextlib.contextmanager
def in_view3d(win=None):
    """The context that an operator finds when it is called from the 3D View."""
    win = win or window()
    area = view3d(win)
    with bpy.context.temp_override(window=win, area=area, region=region_of(area)):
        yield


def middle(region):
    return region.x + region.width // 2, region.y + region.height // 2


# The mouse and the keys, as steps.

_mouse = {}


def _send(win, kind, value, **more):
    x, y = _mouse.get(win.as_pointer(), (win.width // 2, win.height // 2))
    win.event_simulate(type=kind, value=value, x=x, y=y, **more)


def pause(seconds):
    """Lets Blender go on for a while, and for a few turns however slow they are."""
    end, turns = time.monotonic() + seconds, 0
    while time.monotonic() < end or turns < SETTLE_TURNS:
        if turns >= SETTLE_TURNS:
            time.sleep(IDLE)  # as Blender's loop does where no events are made up
        turns += 1
        yield


def move(x, y, win=None):
    win = win or window()
    _mouse[win.as_pointer()] = (int(x), int(y))
    _send(win, "MOUSEMOVE", "NOTHING")
    yield


def click(x, y, button="LEFTMOUSE", win=None):
    win = win or window()
    yield from move(x, y, win)
    yield from key(button, win=win)


def key(kind, win=None, **modifiers):
    win = win or window()
    for value in ("PRESS", "RELEASE"):
        _send(win, kind, value, **modifiers)
        yield


def type_text(text, win=None):
    win = win or window()
    for letter in text:
        # The letter that lands in a field is `unicode`; the key only must not
        # be one that the field takes for itself.
        name = letter.upper() if letter.isascii() and letter.isalpha() else KEYS.get(letter, "PERIOD")
        _send(win, name, "PRESS", unicode=letter)
        yield
        _send(win, name, "RELEASE")
        yield


def f3(text, win=None):
    """Searches the menus for `text` and takes the first match."""
    yield from move(*middle(region_of(view3d(win))), win)
    yield from key("F3", win)
    yield from pause(F3_OPENS)
    yield from type_text(text, win)
    yield from pause(F3_FINDS)
    yield from key("RET", win)


# Buttons.

_seen = {}  # Python commands and where the mouse last met them


def press_button(idname, tab=None, having="", kind="UI"):
    """Clicks the button of an operator and returns the Python command that it stands for.

    With a tab: in the 3D View's sidebar, on that tab. `having` must occur in the command.
    """
    area = view3d()
    if tab is not None:
        yield from show_tab(area, tab)
    region = region_of(area, kind)
    kept = bpy.context.window_manager.clipboard
    try:
        place, command = yield from _find_button(area, region, idname, having)
    finally:
        bpy.context.window_manager.clipboard = kept
    yield from click(*place)
    return command


def list_buttons(tab=None, kind="UI"):
    """The Python commands of all operator buttons that the mouse can find in a region."""
    area = view3d()
    if tab is not None:
        yield from show_tab(area, tab)
    region = region_of(area, kind)
    kept = bpy.context.window_manager.clipboard
    met = {}
    try:
        for place in _places(region):
            met[(yield from _command_at(area, region, place))] = place
    finally:
        bpy.context.window_manager.clipboard = kept
    return [command for command in met if command]


def show_tab(area, tab):
    """Opens the sidebar on a tab."""
    area.spaces.active.show_region_ui = True
    region = region_of(area, "UI")
    for _ in range(LAYOUT_TURNS):
        with contextlib.suppress(AttributeError, TypeError):  # Not laid out yet.
            region.active_panel_category = tab
            if region.width > 1 and region.active_panel_category == tab:
                break
        region.tag_redraw()
        yield
    else:
        raise LookupError(f"the sidebar has no tab {tab!r}")
    region.tag_redraw()
    yield from pause(0)


def _find_button(area, region, idname, having):
    def wanted(command):
        return command.startswith(f"bpy.ops.{idname}(") and having in command

    known = [place for command, place in _seen.items() if wanted(command) and _inside(region, place)]
    met = set()
    for place in [*known, *_places(region)]:
        command = yield from _command_at(area, region, place)
        if wanted(command):
            return place, command
        met.add(command)
    raise LookupError(f"no button {idname} {having!r} there; but {sorted(met - {''})}")


def _places(region):
    """Where a button may be, column by column."""
    columns = range(region.x + EDGE, region.x + region.width - EDGE, PITCH)
    for x in sorted(columns, key=lambda x: _column_order(region, x)):
        for y in range(region.y + region.height - PITCH // 2, region.y, -PITCH):
            yield x, y


def _column_order(region, x):
    """The middle finds wide buttons, the right side those at the end of a row."""
    near_middle = abs(x - region.x - region.width // 2) < PITCH // 2 + 1
    return not near_middle, -x


def _inside(region, place):
    return 0 <= place[0] - region.x < region.width and 0 <= place[1] - region.y < region.height


def _command_at(area, region, place):
    """The Python command of the button under the mouse, or nothing."""
    yield from move(*place)
    with bpy.context.temp_override(window=window(), area=area, region=region):
        if not bpy.ops.ui.copy_python_command_button.poll():
            return ""
        bpy.ops.ui.copy_python_command_button()
    command = bpy.context.window_manager.clipboard
    _seen[command] = place
    return command


OFFERED = [
    "window",
    "view3d",
    "draw_little",
    "region_of",
    "in_view3d",
    "middle",
    "pause",
    "move",
    "click",
    "key",
    "type_text",
    "f3",
    "press_button",
    "list_buttons",
    "show_tab",
]


def stop_own_downloads():
    """From 5.2 on, when online, Blender fetches assets in child processes of its own.

    A test could not tell them from the extension's children, and they ask
    servers on the internet.
    """
    client = sys.modules.get("bl_pkg")
    if not hasattr(client, "remote_asset_library_sync_cancel"):
        return
    bpy.context.preferences.asset_libraries.use_online_essentials = False
    client.remote_asset_library_sync = lambda *_arguments, **_options: None
    for downloader in client._downloaders:  # whose own fails where there is nothing to restore yet
        downloader._backupper.restore = downloader._backupper.restore_if_exists
    client.remote_asset_library_sync_cancel()
    if "multiprocessing.resource_tracker" in sys.modules:
        # It stays otherwise, and nothing but that downloader needed it so far.
        sys.modules["multiprocessing.resource_tracker"]._resource_tracker._stop()


def main():
    """Starts to serve; called once, while Blender starts."""
    preferences = bpy.context.preferences
    preferences.view.show_splash = False
    preferences.view.show_developer_ui = True  # Without it no button tells its command.
    # Smoothing is most of what a redraw costs with software GL, and regions over others are next.
    preferences.system.viewport_aa = "OFF"
    preferences.system.use_overlay_smooth_wire = False
    preferences.system.use_region_overlap = False
    stop_own_downloads()
    server = Server(int(os.environ.pop("BLENDER_TEST_SOCKET")))
    bpy.app.timers.register(server.tick, first_interval=0.0, persistent=True)


main()
