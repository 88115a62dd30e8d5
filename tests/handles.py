"""What Windows tells of this process, its children and what it has open, and what it does to others."""

from __future__ import annotations

import contextlib
import ctypes
import msvcrt
import os
import signal
from collections.abc import Iterator
from ctypes import wintypes

_SNAP_PROCESSES = 0x2
_ALL_HANDLES, _TOO_SMALL = 64, 0xC0000004  # SystemExtendedHandleInformation, STATUS_INFO_LENGTH_MISMATCH
_UNKNOWN, _DISK, _CONSOLE, _PIPE = range(4)  # kinds of handles; sockets are pipes, too
_NAMES = {_CONSOLE: "device", _PIPE: "pipe or socket"}
_INVALID = ctypes.c_void_p(-1).value
_PATH_SIZE = 1024  # characters
_SYSTEMS_OWN = frozenset(("conhost.exe", "explorer.exe"))  # what Windows, and Wine, start by themselves

_SYNCHRONIZE, _SUSPEND_RESUME, _QUERY = 0x00100000, 0x0800, 0x1000  # rights to a process

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel.CreateToolhelp32Snapshot.restype = wintypes.HANDLE
_kernel.OpenProcess.restype = wintypes.HANDLE
_kernel.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
_kernel.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.c_void_p] * 4]
_kernel.CloseHandle.argtypes = [wintypes.HANDLE]
_kernel.GetFileType.argtypes = [wintypes.HANDLE]
_kernel.GetFinalPathNameByHandleW.argtypes = [
    wintypes.HANDLE, wintypes.LPWSTR, wintypes.DWORD, wintypes.DWORD
]  # fmt: skip


class _Process(ctypes.Structure):
    """PROCESSENTRY32W."""

    _fields_ = [
        ("dwSize", wintypes.DWORD),
        ("cntUsage", wintypes.DWORD),
        ("th32ProcessID", wintypes.DWORD),
        ("th32DefaultHeapID", ctypes.c_void_p),
        ("th32ModuleID", wintypes.DWORD),
        ("cntThreads", wintypes.DWORD),
        ("th32ParentProcessID", wintypes.DWORD),
        ("pcPriClassBase", wintypes.LONG),
        ("dwFlags", wintypes.DWORD),
        ("szExeFile", wintypes.WCHAR * 260),
    ]


class _Handle(ctypes.Structure):
    """SYSTEM_HANDLE_TABLE_ENTRY_INFO_EX."""

    _fields_ = [
        ("Object", ctypes.c_void_p),
        ("UniqueProcessId", ctypes.c_size_t),
        ("HandleValue", ctypes.c_size_t),
        ("GrantedAccess", wintypes.ULONG),
        ("CreatorBackTraceIndex", wintypes.USHORT),
        ("ObjectTypeIndex", wintypes.USHORT),
        ("HandleAttributes", wintypes.ULONG),
        ("Reserved", wintypes.ULONG),
    ]


def children(pid: int | None = None) -> list[int]:
    """Children of a process (this one). What has ended is in no list.

    Numbers are used again: what is older than the process had another parent of that number.
    """
    pid = pid or os.getpid()
    began = _began(pid)
    return [
        process.th32ProcessID
        for process in _processes()
        if process.th32ParentProcessID == pid
        and process.szExeFile.lower() not in _SYSTEMS_OWN
        and _began(process.th32ProcessID) >= began
    ]


def _began(pid: int) -> int:
    """When a process did, in Windows' time; 0 where it cannot be asked."""
    times = [wintypes.FILETIME() for _ in range(4)]
    with _opened(pid, _QUERY) as process:
        if process:
            _kernel.GetProcessTimes(process, *map(ctypes.byref, times))
    return times[0].dwHighDateTime << 32 | times[0].dwLowDateTime


def describe(pid: int) -> str:
    """A process in words."""
    names = [process.szExeFile for process in _processes() if process.th32ProcessID == pid]
    return f"{pid} ({names[0] if names else 'gone meanwhile'})"


def descriptors() -> dict[int, str]:
    """Open files, pipes and sockets of this process, by handle, and what each leads to.

    Not the standard streams: whoever captures them gives them new handles now and then. Nor the folder
    that the process is in, which Windows holds open.
    """
    found = {}
    for handle in _handles():
        if (kind := _kernel.GetFileType(handle)) != _UNKNOWN:
            found[handle] = _path(handle) if kind == _DISK else _NAMES[kind]
            if found[handle].removeprefix("\\\\?\\") == os.getcwd():
                del found[handle]
    for stream in range(3):
        with contextlib.suppress(OSError):
            found.pop(msvcrt.get_osfhandle(stream), None)
    return found


def kill(pid: int) -> None:
    """End a process at once; it does nothing more. This is TerminateProcess."""
    os.kill(pid, signal.SIGTERM)


def freeze(pid: int) -> None:
    """Have a process do nothing until it is thawed."""
    with _opened(pid, _SUSPEND_RESUME) as process:
        ctypes.windll.ntdll.NtSuspendProcess(wintypes.HANDLE(process))


def thaw(pid: int) -> None:
    """Have it go on."""
    with _opened(pid, _SUSPEND_RESUME) as process:
        ctypes.windll.ntdll.NtResumeProcess(wintypes.HANDLE(process))


def wait_gone(pid: int, seconds: float) -> bool:
    """Whether a process, which need not be a child of ours, has ended by then."""
    with _opened(pid, _SYNCHRONIZE) as process:
        return not process or _kernel.WaitForSingleObject(process, int(seconds * 1000)) == 0


@contextlib.contextmanager
def _opened(pid: int, rights: int) -> Iterator[int | None]:
    process = _kernel.OpenProcess(rights, False, pid)
    try:
        yield process
    finally:
        if process:
            _kernel.CloseHandle(process)


def _handles() -> list[int]:
    """All handles of this process, of whatever kind."""
    query = ctypes.windll.ntdll.NtQuerySystemInformation
    size = 1 << 16
    while True:
        buffer = ctypes.create_string_buffer(size)
        if query(_ALL_HANDLES, buffer, size, None) & 0xFFFFFFFF != _TOO_SMALL:
            break
        size *= 2
    count = ctypes.c_size_t.from_buffer(buffer).value
    table = (_Handle * count).from_buffer(buffer, 2 * ctypes.sizeof(ctypes.c_size_t))
    return [entry.HandleValue for entry in table if entry.UniqueProcessId == os.getpid()]


def _path(handle: int) -> str:
    buffer = ctypes.create_unicode_buffer(_PATH_SIZE)
    _kernel.GetFinalPathNameByHandleW(handle, buffer, _PATH_SIZE, 0)
    return buffer.value or "file"


def _processes() -> Iterator[_Process]:
    snapshot = _kernel.CreateToolhelp32Snapshot(_SNAP_PROCESSES, 0)
    if snapshot == _INVALID:
        raise ctypes.WinError(ctypes.get_last_error())
    snapshot = wintypes.HANDLE(snapshot)
    try:
        process = _Process(dwSize=ctypes.sizeof(_Process))
        more = _kernel.Process32FirstW(snapshot, ctypes.byref(process))
        while more:
            yield process
            process = _Process(dwSize=ctypes.sizeof(_Process))
            more = _kernel.Process32NextW(snapshot, ctypes.byref(process))
    finally:
        _kernel.CloseHandle(snapshot)
