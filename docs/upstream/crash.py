"""Crashes Blender with Python 3.11 (4.2 to 5.0) within seconds; with Python 3.13 (5.1) it lives.

blender --background --factory-startup --python crash.py       or, with bpy from PyPI: python crash.py
"""

import threading
import time

import bpy

over = threading.Event()


def work():  # touches no bpy
    while not over.is_set():
        time.sleep(0.0001)  # gives the GIL away and takes it back, as all input and output does


for _ in range(4):
    threading.Thread(target=work).start()
end = time.monotonic() + 20
while time.monotonic() < end:
    with bpy.context.temp_override(object=bpy.context.object):
        bpy.ops.object.select_all(action="TOGGLE")
over.set()
print("lived")
